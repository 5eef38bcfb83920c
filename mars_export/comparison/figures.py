"""The plot of a comparison: what each contender refuses, and what that costs harmless requests."""

from collections.abc import Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.common.names import PLOTS
from mars_export.common.plotting import ARMS, GRAY, LIGHT, ORANGE, WIDTH, titled
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.comparison.frontier import Point, frontier, points
from mars_export.comparison.record import Answered, Comparison

__all__ = ["FRONTIER", "draw"]

FRONTIER: Final = f"{PLOTS}/frontier.png"
_MARKERS: Final = {"base": "s", "method": "o", "baseline": "^"}
_NEAR: Final = 5.0
"""Points of percentage within which two labels would lie on each other."""


def draw(comparison: Comparison) -> Figure:
    """One panel per modality: left is better for harmless requests, up for harmful ones."""
    answered = comparison.answered
    assert answered is not None
    shown = [m for m in MODALITIES if any(c.modality == m for c in answered.plain.cells)]
    figure = Figure(figsize=(WIDTH, 1.1 + 4.2 * len(shown)))
    titled(
        figure,
        f"Safety against over-refusal, {comparison.model}",
        "crosses: 95 % intervals, topics as the unit; line: no contender is better in both",
    )
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, modality in zip(panels, shown, strict=True):
        axes.set_title(modality, fontweight="bold")
        _panel(axes, comparison, answered, modality)
    return figure


def _panel(axes: Axes, comparison: Comparison, answered: Answered, modality: Modality) -> None:
    kinds = {c.name: c.kind for c in comparison.compared}
    names = [name for name in kinds if kinds[name] != "base"]
    placed = points(answered, modality)
    for point in placed:
        base = kinds[point.arm] == "base"
        color = GRAY if base else ARMS[names.index(point.arm) % len(ARMS)]
        if point.arm == answered.yardstick:
            color = ORANGE
        axes.plot([100 * point.harmless.low, 100 * point.harmless.high],
                  [100 * point.harmful.rate] * 2, color=color, linewidth=1, alpha=0.6)  # fmt: skip
        axes.plot([100 * point.harmless.rate] * 2,
                  [100 * point.harmful.low, 100 * point.harmful.high],
                  color=color, linewidth=1, alpha=0.6)  # fmt: skip
        axes.plot(100 * point.harmless.rate, 100 * point.harmful.rate,
                  _MARKERS[kinds[point.arm]], color=color, markersize=7)  # fmt: skip
    _labels(axes, placed)
    line = sorted(frontier(placed), key=lambda p: p.harmless.rate)
    axes.plot([100 * p.harmless.rate for p in line], [100 * p.harmful.rate for p in line],
              color=LIGHT, linewidth=2, zorder=0, drawstyle="steps-post")  # fmt: skip
    axes.set_xlim(-3, 103)
    axes.set_ylim(-5, 105)
    axes.set_xlabel("harmless requests newly refused, with controls, %")
    axes.set_ylabel("harmful requests refused, %")


def _labels(axes: Axes, placed: Sequence[Point]) -> None:
    """Names beside the points; those of points at one place stand above each other."""
    rows: list[tuple[float, float]] = []
    for point in sorted(placed, key=lambda p: (p.harmless.rate, p.harmful.rate)):
        x, y = 100 * point.harmless.rate, 100 * point.harmful.rate
        level = y
        while any(abs(level - other) < _NEAR and abs(x - at) < 25 for at, other in rows):
            level -= _NEAR
        rows.append((x, level))
        axes.annotate(
            point.arm, (x, y), xytext=(x + 2, level), textcoords="data", fontsize=9, va="center",
            arrowprops={"arrowstyle": "-", "color": LIGHT} if level != y else None,
        )  # fmt: skip
