"""Plots of an evaluation; all show every arm but the gates, which are the checkpoint's own."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.card.lines import by_group
from mars_export.common.names import PLOTS
from mars_export.common.plotting import ARMS, BLUE, GRAY, LIGHT, ORANGE, WIDTH, bare, titled
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.evaluation.report import REFERENCE, STEERED, Cell, Report, label, undecided

__all__ = ["CONTROLS", "GATES", "REFUSAL", "plots"]

REFUSAL: Final = f"{PLOTS}/refusal_by_modality.png"
CONTROLS: Final = f"{PLOTS}/controls.png"
GATES: Final = f"{PLOTS}/gate_histogram.png"

_PANELS: Final = {
    True: "Harmful requests: right is better",
    False: "Harmless requests: left is better",
}
_BINS: Final = 30

Cells = Mapping[bool, Mapping[str, Cell]]
"""Of harmful and harmless requests, each by arm."""
Colors = Mapping[str, str]
"""Color of each arm, the reference first."""


def plots(report: Report | None) -> dict[str, Callable[[], Figure]]:
    """The plots that a report allows, by path relative to the card."""
    drawings: dict[str, Callable[[], Figure]] = {}
    if report is None:
        return drawings
    if not undecided(report.cells):
        drawings[REFUSAL] = partial(_refusal, report)
    controls = _controls(report)
    if controls:
        drawings[CONTROLS] = partial(_control_rates, controls)
    gates = report.gates.get(STEERED, {})
    if any(gates.values()):
        drawings[GATES] = partial(_gates, gates)
    return drawings


def _colors(report: Report) -> Colors:
    names = [arm.name for arm in report.arms if arm.name != REFERENCE]
    return {REFERENCE: GRAY} | {name: ARMS[i % len(ARMS)] for i, name in enumerate(names)}


def _subject(colors: Colors) -> str:
    return "steering off and on" if set(colors) == {REFERENCE, STEERED} else "every arm"


def _refusal(report: Report) -> Figure:
    """Two panels side by side, one row per modality, one interval per arm."""
    table, colors = by_group(report.cells), _colors(report)
    groups = {
        harmful: {m: arms for (h, m), arms in table.items() if h == harmful} for harmful in _PANELS
    }
    rows = max(len(group) for group in groups.values())
    drawing = Figure(figsize=(WIDTH, 1.55 + rows * max(0.75, 0.33 * len(colors))))
    titled(
        drawing,
        f"Share of requests refused, {_subject(colors)}",
        f"dots with 95 % intervals, topics as the unit; judge: {report.judge}, style, not harm",
    )
    for axes, (harmful, title) in zip(drawing.subplots(1, 2), _PANELS.items(), strict=True):
        axes.set_title(title)
        _rows(axes, groups[harmful], colors)
    return drawing


def _controls(report: Report) -> list[tuple[str, Cells]]:
    """Name and cells of every control and modality, of the reference and the checkpoint."""
    rows: list[tuple[str, Cells]] = []
    for variant in report.variants:
        if variant.kind != "control" or undecided(variant.cells):
            continue
        table = by_group(variant.cells)
        for modality in MODALITIES:
            cells = {h: table[h, modality] for h in _PANELS if (h, modality) in table}
            if cells:
                rows.append((f"{variant.name}, {modality}", cells))
    return rows


def _control_rates(rows: Sequence[tuple[str, Cells]]) -> Figure:
    """Two panels side by side, one row per control and modality, steering off and on."""
    drawing = Figure(figsize=(WIDTH, 1.5 + 0.3 * len(rows)))
    titled(
        drawing,
        "Share refused when shown in other ways, steering off and on",
        "hollow: off, full: on; lines: 95 % intervals, topics as the unit; style, not harm",
    )
    colors = {REFERENCE: GRAY, STEERED: ARMS[0]}
    panels = drawing.subplots(1, 2, sharey=True)
    for axes, (harmful, title) in zip(panels, _PANELS.items(), strict=True):
        axes.set_title(title)
        for row, (_, cells) in enumerate(rows):
            for offset, (arm, color) in zip((-0.14, 0.14), colors.items(), strict=True):
                if harmful in cells:
                    rate = cells[harmful][arm].refused
                    ends = [100 * rate.low, 100 * rate.high]
                    axes.plot(ends, [row + offset] * 2, color=color, linewidth=1.8)
                    _mark(axes, (100 * rate.rate, row + offset), arm, color, size=5)
        _scale(axes, [name for name, _ in rows])
    return drawing


def _rows(axes: Axes, group: Mapping[Modality, Mapping[str, Cell]], colors: Colors) -> None:
    offsets = np.linspace(-0.5, 0.5, len(colors)) * min(0.62, 0.34 * (len(colors) - 1))
    for row, cells in enumerate(group.values()):
        for offset, (arm, color) in zip(offsets, colors.items(), strict=True):
            _interval(axes, row + offset, cells[arm], color)
    _scale(axes, list(group))


def _scale(axes: Axes, rows: Sequence[str]) -> None:
    """Named rows from above, shares from left to right."""
    axes.set_yticks(range(len(rows)), labels=rows)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    axes.set_xlim(-3, 103)
    axes.set_xticks([0, 25, 50, 75, 100], labels=["0", "25", "50", "75", "100 %"])
    axes.grid(axis="x", color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    bare(axes)


def _interval(axes: Axes, y: float, cell: Cell, color: str) -> None:
    rate = cell.refused
    axes.plot([100 * rate.low, 100 * rate.high], [y, y], color=color, linewidth=2.2)
    _mark(axes, (100 * rate.rate, y), cell.arm, color)
    right = rate.rate <= 0.5
    axes.annotate(
        f"{cell.arm} {rate.count}/{rate.n}", (100 * (rate.high if right else rate.low), y),
        xytext=(8 if right else -8, 0), textcoords="offset points", va="center",
        ha="left" if right else "right", fontsize=9, color=color,
    )  # fmt: skip


def _mark(axes: Axes, at: tuple[float, float], arm: str, color: str, size: float = 7) -> None:
    face = "white" if arm == REFERENCE else color
    axes.plot(*at, "o", color=color, markersize=size, markerfacecolor=face, markeredgewidth=1.6)


def _gates(gates: Mapping[str, Sequence[float]]) -> Figure:
    """One panel per modality with both labels as mirrored histograms on one gate axis."""
    modalities = [m for m in MODALITIES if any(gates.get(label(h, m)) for h in (True, False))]
    drawing = Figure(figsize=(WIDTH, 1.3 + 1.5 * len(modalities)))
    titled(
        drawing,
        "Gate values on the evaluation requests, steering on",
        "up: harmful, down: harmless; bars count requests with an open gate (0 = left alone)",
    )
    top = max(max(values, default=0.0) for values in gates.values())
    edges = np.linspace(0.0, top if top > 0 else 1.0, _BINS + 1)
    panels = drawing.subplots(len(modalities), 1, sharex=True, squeeze=False)[:, 0]
    for axes, modality in zip(panels, modalities, strict=True):
        axes.set_title(modality, fontweight="bold")
        _histograms(axes, {h: gates.get(label(h, modality), []) for h in (True, False)}, edges)
    panels[-1].set_xlabel("gate")
    return drawing


def _histograms(axes: Axes, values: Mapping[bool, Sequence[float]], edges: np.ndarray) -> None:
    counts = {h: np.histogram([v for v in vs if v > 0], edges)[0] for h, vs in values.items()}
    height = max(1, *(int(c.max()) for c in counts.values()))
    for harmful, color in {True: ORANGE, False: BLUE}.items():
        sign = 1 if harmful else -1
        axes.bar(
            edges[:-1], sign * counts[harmful], np.diff(edges), align="edge", color=color,
            edgecolor="white", linewidth=0.4,
        )  # fmt: skip
        shut = sum(v <= 0 for v in values[harmful])
        axes.text(
            0.995, 0.5 + 0.42 * sign, f"{'harmful' if harmful else 'harmless'}: gate shut on "
            f"{shut} of {len(values[harmful])}", transform=axes.transAxes, ha="right", va="center",
            color=color, fontsize=9,
        )  # fmt: skip
    axes.axhline(0, color=GRAY, linewidth=0.8)
    axes.set_ylim(-1.9 * height, 1.9 * height)
    axes.set_yticks([-height, 0, height], labels=[str(height), "0", str(height)])
    axes.tick_params(labelsize=8.5)
