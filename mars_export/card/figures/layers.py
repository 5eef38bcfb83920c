"""Why a layer was chosen: its text-only scores, and where validation requests lie along it."""

from collections.abc import Sequence
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mars_export.common.plotting import BLUE, GREY, INK, LIGHT, ORANGE, WIDTH, bare, titled
from mars_export.methods.base import ArtefactRecord
from mars_export.methods.mars.record import Coordinates, LayerScore, MarsRecord, mars_record

__all__ = ["figure"]

_SCORES: Final = {
    "consistency": "Consistency (cosine)",
    "separability": "Separability (d')",
    "margin": "Margin (over R)",
    "combined": "Combined (0 to 1)",
}


def figure(artefact: ArtefactRecord) -> Figure:
    """Small multiples of the scores; below them the projections, if the record has any."""
    record, layers = mars_record(artefact), artefact.source.layers
    groups = [line for line in record.projections if line.values]
    below = 1.0 + 0.38 * len(groups) if groups else 0.0
    ratios = [2.3, below] if groups else [1.0]
    drawing = Figure(figsize=(WIDTH, 3.0 + below))
    titled(
        drawing,
        f"Why layer {record.layer} (of 0 to {layers - 1})",
        "text-only scores (hollow = excluded, band = chosen)"
        + ("; below, validation requests along the direction" if groups else ""),
    )
    panels = drawing.subfigures(2 if groups else 1, 1, squeeze=False, height_ratios=ratios)[:, 0]
    for axes, field in zip(panels[0].subplots(1, len(_SCORES)), _SCORES, strict=True):
        _score(axes, record, field)
        axes.set_xlim(-0.6, layers - 0.4)
    if groups:
        _projections(panels[1].subplots(), record, groups)
    return drawing


def _score(axes: Axes, record: MarsRecord, field: str) -> None:
    axes.set_title(_SCORES[field], fontsize=9.5)
    axes.axvline(record.layer, color=BLUE, linewidth=6, alpha=0.18)
    admitted = [s for s in record.scores if s.excluded is None]
    excluded = [s for s in record.scores if s.excluded is not None]
    axes.plot(*_points(record.scores, field), color=LIGHT, linewidth=1.2)
    axes.plot(*_points(excluded, field), "o", color=GREY, markerfacecolor="white", markersize=5)
    axes.plot(*_points(admitted, field), "o", color=BLUE, markersize=5)
    axes.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    axes.set_xlabel("layer", fontsize=9)
    axes.tick_params(labelsize=8.5)


def _points(scores: Sequence[LayerScore], field: str) -> tuple[list[int], list[float]]:
    known = [(s.layer, getattr(s, field)) for s in scores if getattr(s, field) is not None]
    return [layer for layer, _ in known], [value for _, value in known]


def _projections(axes: Axes, record: MarsRecord, groups: Sequence[Coordinates]) -> None:
    """One strip per group, spread by a fixed seed, with the gate's origin and the cap."""
    spread = np.random.default_rng(0)
    for row, line in enumerate(groups):
        color = ORANGE if line.label == "harmful" else BLUE
        height = row + spread.uniform(-0.26, 0.26, len(line.values))
        axes.plot(
            line.values, height, "o", color=color, alpha=0.45, markersize=3.6, markeredgewidth=0
        )
    labels = [f"{line.group} ({len(line.values)})" for line in groups]
    axes.set_yticks(range(len(groups)), labels=labels)
    axes.set_ylim(len(groups) - 0.45, -0.55)
    for x, name in ((record.origin, "gate opens (o)"), (record.cap, "no push beyond (c)")):
        axes.axvline(x, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate(
            name, (x, 1.0), xycoords=("data", "axes fraction"), xytext=(0, 3),
            textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
        )  # fmt: skip
    axes.set_xlabel("re-centered coordinate along the refusal direction (residual-stream units)")
    axes.tick_params(labelsize=8.5)
    bare(axes)
