"""The plot of a comparison: what each contender refuses, and what that costs harmless requests."""

from collections.abc import Mapping, Sequence
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from mars_export.common.names import PLOTS
from mars_export.common.plotting import ARMS, GRAY, LIGHT, ORANGE, WIDTH, titled
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.comparison.frontier import Point, frontier, points
from mars_export.comparison.record import Answered, Comparison
from mars_export.evaluation.report import REFERENCE

__all__ = ["FRONTIER", "draw"]

FRONTIER: Final = f"{PLOTS}/frontier.png"
_MARKERS: Final = {"base": "s", "method": "o", "baseline": "^"}
_OUTLINE: Final = withStroke(linewidth=3, foreground="white")
_ROW: Final = 7.0
"""Points of percentage that a label is high."""
_NEAR: Final = 6.0
"""Points of percentage within which two labels would lie on each other."""


def draw(comparison: Comparison) -> Figure:
    """One panel per modality: left is better for harmless requests, up for harmful ones."""
    answered = comparison.answered
    assert answered is not None
    shown = [m for m in MODALITIES if any(c.modality == m for c in answered.plain.cells)]
    figure = Figure(figsize=(WIDTH, 1.1 + 3.3 * len(shown)))
    titled(
        figure,
        f"Safety against over-refusal, {comparison.model}",
        "circles: methods; triangles: baselines; crosses: 95 % intervals over topics; "
        "line: the frontier",
    )
    panels = figure.subplots(len(shown), 1, squeeze=False)[:, 0]
    for axes, modality in zip(panels, shown, strict=True):
        axes.set_title(modality, fontweight="bold")
        _panel(axes, comparison, answered, modality)
    return figure


def _panel(axes: Axes, comparison: Comparison, answered: Answered, modality: Modality) -> None:
    kinds, colors = {c.name: c.kind for c in comparison.compared}, _colors(comparison)
    placed = points(answered, modality)
    for point in placed:
        (x, y), color = _at(point), colors[point.arm]
        sides = [100 * point.harmless.low, 100 * point.harmless.high]
        ends = [100 * point.harmful.low, 100 * point.harmful.high]
        axes.plot(sides, [y, y], color=color, linewidth=1, alpha=0.6)
        axes.plot([x, x], ends, color=color, linewidth=1, alpha=0.6)
        axes.plot(x, y, _MARKERS[kinds[point.arm]], color=color, markersize=7)
    _labels(axes, placed, colors)
    line = sorted(map(_at, frontier(placed)))
    axes.plot(*zip(*line, strict=True), color=LIGHT, linewidth=2, zorder=0, drawstyle="steps-post")
    axes.set_xlim(-3, 103)
    axes.set_ylim(-5, 105)
    how = "with controls" if answered.controlled else "without controls"
    axes.set_xlabel(f"harmless requests newly refused, {how}, %")
    axes.set_ylabel("harmful requests refused, %")


def _colors(comparison: Comparison) -> dict[str, str]:
    """Gray for the model as it is, orange for the yardstick, the others in turn."""
    names = [contender.name for contender in comparison.compared]
    colors = {name: ARMS[index % len(ARMS)] for index, name in enumerate(names)}
    yardstick = comparison.answered.yardstick if comparison.answered else ""
    return {**colors, REFERENCE: GRAY, yardstick: ORANGE}


def _labels(axes: Axes, placed: Sequence[Point], colors: Mapping[str, str]) -> None:
    """Names beside the points; those of points that lie close together stand below each other.

    Where there is no room below, they stand above each other.
    """
    groups: list[list[Point]] = []
    for point in sorted(placed, key=lambda point: (-_at(point)[1], _at(point)[0])):
        x, y = _at(point)
        group = next((group for group in groups if _reaches(group, x, y)), None)
        if group is None:
            groups.append(group := [])
        group.append(point)
    for group in groups:
        right = max(_at(point)[0] for point in group)
        left = right > 60
        heights = [_at(point)[1] for point in group]
        down = max(heights) >= _ROW * (len(group) - 1)
        start, step = (max(heights), -12) if down else (min(heights), 12)
        for row, point in enumerate(group):
            axes.annotate(
                point.arm, (right, start), fontsize=9, color=colors[point.arm], va="center",
                xytext=(-9 if left else 9, step * row), textcoords="offset points",
                ha="right" if left else "left", path_effects=[_OUTLINE],
            )  # fmt: skip


def _reaches(group: Sequence[Point], x: float, y: float) -> bool:
    """Whether the names beside a group lie where that of a lower point is to stand."""
    left, top = _at(group[0])
    return abs(x - left) < _NEAR and top - y < _ROW * len(group)


def _at(point: Point) -> tuple[float, float]:
    """Place of a point, percent."""
    return 100 * point.harmless.rate, 100 * point.harmful.rate
