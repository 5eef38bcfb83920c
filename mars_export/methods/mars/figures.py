"""Plots of a MARS calibration: why a layer was chosen, and how it separates requests."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mars_export.common.plotting import BLUE, GRAY, INK, LIGHT, ORANGE, WIDTH, bare, titled
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import ArtefactRecord
from mars_export.methods.mars.record import (
    Condition,
    Coordinates,
    LayerScore,
    Margin,
    MarsRecord,
    mars_record,
)

__all__ = ["conditions", "scores", "separation"]

_SCORES: Final = {
    "consistency": "Consistency (cosine)",
    "separability": "Separability (d')",
    "margin": "Margin (over R)",
    "combined": "Combined (0 to 1)",
}
_COLORS: Final = {"harmful": ORANGE, "harmless": BLUE}


def conditions(artefact: ArtefactRecord) -> Figure:
    """Where harmless requests of each condition lie at the chosen layer, and harmful stand-ins."""
    record = mars_record(artefact)
    margins = {margin.modality: margin for margin in record.margins}
    panels = [
        (m, [c for c in record.conditions if c.modality == m], margins.get(m)) for m in record.shift
    ]
    panels = [panel for panel in panels if panel[1]]
    rows = [len(lines) + (margin is not None) for _, lines, margin in panels]
    drawing = Figure(figsize=(WIDTH, 1.1 + 0.3 * len(panels) + 0.23 * sum(rows)))
    titled(
        drawing,
        "Where harmless and harmful requests of each kind lie",
        f"layer {record.layer}, after the shift; dot = mean, tick = 95 % lie below it; "
        "hollow = left out of the origin",
    )
    grid = drawing.subplots(len(panels), 1, sharex=True, squeeze=False, height_ratios=rows)[:, 0]
    for axes, (modality, lines, margin) in zip(grid, panels, strict=True):
        _conditions(axes, record, modality, lines, margin)
    grid[-1].set_xticks([0, 1], labels=["harmless text, mean", "harmful text, mean"])
    return drawing


def scores(artefact: ArtefactRecord) -> Figure:
    """Small multiples of the scores by layer; below them the decision requests, if recorded."""
    record, layers = mars_record(artefact), artefact.source.layers
    groups = [line for line in record.projections if line.values]
    below = 1.0 + 0.38 * len(groups) if groups else 0.0
    ratios = [2.3, below] if groups else [1.0]
    drawing = Figure(figsize=(WIDTH, 3.0 + below))
    titled(
        drawing,
        "Text-only scores by layer",
        f"layers 0 to {layers - 1}; hollow = excluded, band = chosen (layer {record.layer})"
        + ("; below, decision requests along the direction" if groups else ""),
    )
    panels = drawing.subfigures(2 if groups else 1, 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axes, field in zip(panels[0].subplots(1, len(_SCORES)), _SCORES, strict=True):
        _score(axes, record, field)
        axes.set_xlim(-0.6, layers - 0.4)
    if groups:
        _projections(panels[1].subplots(), record, groups)
    return drawing


def separation(artefact: ArtefactRecord) -> Figure:
    """Medians with the middle 80 % by layer: text alone, then with each neutral stimulus."""
    record, modalities = mars_record(artefact), artefact.source.modalities
    drawing = Figure(figsize=(WIDTH, 3.6))
    titled(
        drawing,
        "Harmful and harmless requests along the refusal direction, by layer",
        "decision requests, re-centered; lines are medians, areas the middle 80 %; "
        f"chosen: layer {record.layer}",
    )
    panels = drawing.subplots(1, len(modalities), sharey=True, squeeze=False)[0]
    for axes, modality in zip(panels, modalities, strict=True):
        _spread(axes, record, modality)
        axes.set_xlim(-0.6, artefact.source.layers - 0.4)
    panels[0].set_yticks([0, 1], labels=["harmless text, mean", "harmful text, mean"])
    for axes in panels[1:]:
        axes.tick_params(left=False)
    return drawing


def _conditions(
    axes: Axes,
    record: MarsRecord,
    modality: Modality,
    lines: Sequence[Condition],
    margin: Margin | None,
) -> None:
    """One row per condition of a modality; the last one has the harmful stand-ins."""
    plain = _mean(record, modality)
    origin = (record.origin[modality] - record.harmless) / record.separation
    for row, line in enumerate(lines):
        fill = BLUE if line.treatment in ("origin", "shift", "none") else "white"
        middle = None if plain is None else plain + line.rest
        ends = [x for x in (middle, line.bound) if x is not None]
        axes.plot(ends, [row] * len(ends), color=BLUE, linewidth=1.6)
        if line.bound is not None:
            axes.plot(line.bound, row, "|", color=BLUE, markersize=7)
        if middle is not None:
            axes.plot(middle, row, "o", color=BLUE, markersize=6, markerfacecolor=fill)
    labels = [line.name for line in lines]
    if margin is not None:
        low, median = origin + margin.low, origin + margin.median
        axes.plot([low, median], [len(lines)] * 2, color=ORANGE, linewidth=1.6)
        axes.plot(low, len(lines), "|", color=ORANGE, markersize=7)
        axes.plot(median, len(lines), "D", color=ORANGE, markersize=5.5)
        labels.append("harmful text (median, 10 %)")
    axes.axvline(origin, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    axes.annotate(
        "gate opens (o)", (origin, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
        textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
    )  # fmt: skip
    title = "text" if modality == "text" else f"text + {modality}"
    axes.set_title(title, x=-0.012, ha="right", fontweight="bold")  # over the names of the rows
    axes.set_yticks(range(len(labels)), labels=labels)
    axes.set_ylim(len(labels) - 0.45, -0.55)
    axes.tick_params(labelsize=8.5)
    bare(axes)


def _mean(record: MarsRecord, modality: Modality) -> float | None:
    """Mean of plain harmless requests, between the text centroids at 0 and 1."""
    values = [
        value
        for line in record.projections
        if (line.label, line.modality) == ("harmless", modality)
        for value in line.values
    ]
    return (float(np.mean(values)) - record.harmless) / record.separation if values else None


def _score(axes: Axes, record: MarsRecord, field: str) -> None:
    axes.set_title(_SCORES[field], fontsize=9.5)
    axes.axvline(record.layer, color=BLUE, linewidth=6, alpha=0.18)
    admitted = [s for s in record.scores if s.excluded is None]
    excluded = [s for s in record.scores if s.excluded is not None]
    axes.plot(*_points(record.scores, field), color=LIGHT, linewidth=1.2)
    axes.plot(*_points(excluded, field), "o", color=GRAY, markerfacecolor="white", markersize=5)
    axes.plot(*_points(admitted, field), "o", color=BLUE, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("layer", fontsize=9)
    axes.tick_params(labelsize=8.5)


def _points(layers: Sequence[LayerScore], field: str) -> tuple[list[int], list[float]]:
    points = [(s.layer, getattr(s, field)) for s in layers if getattr(s, field) is not None]
    return [layer for layer, _ in points], [value for _, value in points]


def _projections(axes: Axes, record: MarsRecord, groups: Sequence[Coordinates]) -> None:
    """One strip per group, spread by a fixed seed, with its gate's origin; and the cap."""
    spread = np.random.default_rng(0)
    for row, line in enumerate(groups):
        height = row + spread.uniform(-0.26, 0.26, len(line.values))
        axes.plot(
            line.values, height, "o", color=_COLORS[line.label], alpha=0.45, markersize=3.6,
            markeredgewidth=0,
        )  # fmt: skip
        origin = record.origin[line.modality]
        axes.plot([origin, origin], [row - 0.42, row + 0.42], color=INK, linewidth=1.2)
    labels = [f"{line.group} ({len(line.values)})" for line in groups]
    axes.set_yticks(range(len(groups)), labels=labels)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    axes.axvline(record.cap, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    first = record.origin[groups[0].modality]
    for x, name in ((first, "gate opens (o)"), (record.cap, "no push beyond (c)")):
        axes.annotate(
            name, (x, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
        )  # fmt: skip
    axes.set_xlabel("re-centered coordinate along the refusal direction (residual-stream units)")
    axes.tick_params(labelsize=8.5)
    bare(axes)


def _spread(axes: Axes, record: MarsRecord, modality: Modality) -> None:
    axes.set_title("text" if modality == "text" else f"text + neutral {modality}")
    axes.axvline(record.layer, color=GRAY, linewidth=6, alpha=0.22)
    for y in (0, 1):
        axes.axhline(y, color=LIGHT, linewidth=0.9, zorder=0)
    for label, color in _COLORS.items():
        quantiles = [
            (s.layer, q.low, q.middle, q.high)
            for s in record.scores
            for q in s.groups
            if (q.label, q.modality) == (label, modality)
        ]
        if not quantiles:
            continue
        layers, low, middle, high = zip(*quantiles, strict=True)
        axes.fill_between(layers, low, high, color=color, alpha=0.22, linewidth=0)
        axes.plot(layers, middle, "o-", color=color, linewidth=1.6, markersize=3.5)
        below = label == "harmful"
        axes.annotate(
            label, (layers[-1], low[-1] if below else high[-1]), xytext=(0, -4 if below else 4),
            textcoords="offset points", ha="right", va="top" if below else "bottom",
            color=color, fontsize=9,
        )  # fmt: skip
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("layer", fontsize=9)
