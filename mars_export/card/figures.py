"""Plots of an evaluation; all show every arm but the gates, which are the checkpoint's own."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from mars_export.card.results import by_group
from mars_export.common.plotting import ARMS, BLUE, GRAY, INK, LIGHT, ORANGE, WIDTH, bare, titled
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.evaluation.report import REFERENCE, STEERED, Cell, Report, label, undecided

__all__ = ["GATES", "PLANE", "REFUSAL", "plots"]

REFUSAL: Final = "assets/refusal_by_modality.png"
PLANE: Final = "assets/safety_over_refusal.png"
GATES: Final = "assets/gate_histogram.png"

_PANELS: Final = {
    True: "Harmful requests: right is better",
    False: "Harmless requests: left is better",
}
_NEAR: Final = 8.0
"""Percentage points below which two marks share one name and have no arrow."""
_BINS: Final = 30

Colors = Mapping[str, str]
"""Color of each arm, the reference first."""


def plots(report: Report | None) -> dict[str, Callable[[], Figure]]:
    """The plots that a report allows, by path relative to the card."""
    drawings: dict[str, Callable[[], Figure]] = {}
    if report is None:
        return drawings
    if not undecided(report.cells):
        drawings[REFUSAL] = partial(_refusal, report)
        if _compared(report):
            drawings[PLANE] = partial(_plane, report)
    gates = report.gates.get(STEERED, {})
    if any(gates.values()):
        drawings[GATES] = partial(_gates, gates)
    return drawings


def _colors(report: Report) -> Colors:
    names = [arm.name for arm in report.arms if arm.name != REFERENCE]
    return {REFERENCE: GRAY} | {name: ARMS[i % len(ARMS)] for i, name in enumerate(names)}


def _subject(colors: Colors) -> str:
    return "steering off and on" if set(colors) == {REFERENCE, STEERED} else "every arm"


def _compared(report: Report) -> list[Modality]:
    """Modalities with harmful and harmless requests."""
    groups = {(cell.harmful, cell.modality) for cell in report.cells}
    return [m for m in MODALITIES if {(True, m), (False, m)} <= groups]


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
        f"same weights and requests; dots with Wilson 95 % intervals; judge: {report.judge}, "
        "style of the response, not harm",
    )
    for axes, (harmful, title) in zip(drawing.subplots(1, 2), _PANELS.items(), strict=True):
        axes.set_title(title)
        _rows(axes, groups[harmful], colors)
    return drawing


def _rows(axes: Axes, group: Mapping[Modality, Mapping[str, Cell]], colors: Colors) -> None:
    offsets = np.linspace(-0.5, 0.5, len(colors)) * min(0.62, 0.34 * (len(colors) - 1))
    for row, cells in enumerate(group.values()):
        for offset, (arm, color) in zip(offsets, colors.items(), strict=True):
            _interval(axes, row + offset, cells[arm], color)
    axes.set_yticks(range(len(group)), labels=list(group))
    axes.set_ylim(len(group) - 0.4, -0.6)
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


def _mark(axes: Axes, at: tuple[float, float], arm: str, color: str) -> None:
    face = "white" if arm == REFERENCE else color
    axes.plot(*at, "o", color=color, markersize=7, markerfacecolor=face, markeredgewidth=1.6)


def _plane(report: Report) -> Figure:
    """One panel per modality with harmful and harmless requests; up and left is better."""
    table, colors, modalities = by_group(report.cells), _colors(report), _compared(report)
    direct = len(colors) == 2  # two marks are named where they lie, more by a legend
    drawing = Figure(figsize=(WIDTH, 3.7 if direct else 4.0))
    titled(
        drawing,
        f"Safety against over-refusal, {_subject(colors)}",
        "crosses are Wilson 95 % intervals; best is the upper left corner; judge: "
        f"{report.judge}, style, not harm",
    )
    panels = drawing.subplots(1, len(modalities), sharex=True, sharey=True, squeeze=False)[0]
    for axes, modality in zip(panels, modalities, strict=True):
        axes.set_title(modality)
        _crosses(axes, table[True, modality], table[False, modality], colors, direct)
    panels[0].set_ylabel("harmful refused")
    if not direct:
        marks = [
            Line2D([], [], marker="o", linestyle="", color=color, label=arm,
                   markerfacecolor="white" if arm == REFERENCE else color)
            for arm, color in colors.items()
        ]  # fmt: skip
        drawing.legend(handles=marks, loc="outside lower center", ncols=len(marks), frameon=False)
    return drawing


def _crosses(
    axes: Axes,
    harmful: Mapping[str, Cell],
    harmless: Mapping[str, Cell],
    colors: Colors,
    direct: bool,
) -> None:
    at = {
        arm: (100 * harmless[arm].refused.rate, 100 * harmful[arm].refused.rate) for arm in colors
    }
    for arm, color in colors.items():
        (x, y), across, up = at[arm], harmless[arm].refused, harmful[arm].refused
        axes.plot([100 * across.low, 100 * across.high], [y, y], color=color, linewidth=2.2)
        axes.plot([x, x], [100 * up.low, 100 * up.high], color=color, linewidth=2.2)
        _mark(axes, (x, y), arm, color)
        if arm != REFERENCE and math.dist(at[REFERENCE], at[arm]) > _NEAR:
            arrow = {"arrowstyle": "-|>", "color": INK, "shrinkA": 7, "shrinkB": 7, "lw": 1.2}
            axes.annotate("", at[arm], at[REFERENCE], arrowprops=arrow)
    if direct and math.dist(*at.values()) <= _NEAR:
        _name(axes, ", ".join(at), list(at.values())[-1], INK)
    elif direct:
        for arm, color in colors.items():
            _name(axes, arm, at[arm], color)
    axes.set_xlim(-4, 104)
    axes.set_ylim(-4, 104)
    axes.set_aspect("equal")
    axes.set_xticks([0, 50, 100], labels=["0", "50", "100 %"])
    axes.set_yticks([0, 50, 100], labels=["0", "50", "100 %"])
    axes.set_xlabel("harmless refused")
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)


def _name(axes: Axes, name: str, at: tuple[float, float], color: str) -> None:
    x, y = at
    axes.annotate(
        name, at, xytext=(-9 if x > 50 else 9, -6 if y > 50 else 6), textcoords="offset points",
        ha="right" if x > 50 else "left", va="top" if y > 50 else "bottom",
        color=color, fontsize=9.5,
    )  # fmt: skip


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
