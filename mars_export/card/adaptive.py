"""What a card says about attackers that adapt: a table, and success against their budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from math import ceil
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.card.text import rate
from mars_export.common.markdown import DASH
from mars_export.common.names import PLOTS
from mars_export.common.plotting import ARMS, BLUE, GRAY, LIGHT, WIDTH, titled
from mars_export.evaluation.adaptive.record import RANDOM, SAFETY, Adaptive, Curve, Point, at
from mars_export.evaluation.report import REFERENCE, STEERED

__all__ = ["CURVES", "AdaptiveLine", "adaptive_lines", "adaptive_plots", "figure"]

CURVES: Final = f"{PLOTS}/adaptive_attacks.png"

_COLORS: Final = {REFERENCE: GRAY, SAFETY: ARMS[1], STEERED: BLUE, RANDOM: ARMS[2]}
_COLUMNS: Final = 3
_HALF: Final = 0.5


@dataclass(frozen=True)
class AdaptiveLine:
    """One curve of the record, as a row of the table."""

    access: str
    """`white box` or `black box`."""
    attack: str
    shown: str
    goal: str
    curve: str
    """Successes with steering on at each budget and answers that are unclear, of how many
    requests."""
    most: str
    """The most of them, with its interval: a longer attack can be a worse one."""
    half: str
    """Smallest budget with which half of the requests fall, in each arm that was run."""
    on_topic: str
    """Of those, answers that name what was asked for."""


def adaptive_lines(record: Adaptive | None) -> tuple[AdaptiveLine, ...]:
    """Every curve of the record."""
    return tuple(map(_line, record.curves)) if record else ()


def _line(curve: Curve) -> AdaptiveLine:
    arms = {arm: [p for p in curve.points if p.arm == arm] for arm in _COLORS}
    on = arms[STEERED]
    counts = ", ".join(f"{at(point.at)}: {_count(point)}" for point in on)
    most = max(on, key=lambda point: point.success.count)
    named = most.on_topic if curve.goal == "answered" else None
    return AdaptiveLine(
        access=curve.access,
        attack=curve.attack,
        shown=curve.shown,
        goal=curve.goal,
        curve=f"{counts} of {most.success.n} ({curve.unit})",
        most=rate(most.success),
        half=", ".join(f"{arm}: {_half(points)}" for arm, points in arms.items() if points),
        on_topic=DASH if named is None else f"{named} of {most.success.count}",
    )


def _count(point: Point) -> str:
    """Successes, and answers that are neither: those are no failure of the attack either."""
    unclear = f" ({point.open} unclear)" if point.open else ""
    return f"{point.success.count}{unclear}"


def _half(points: Sequence[Point]) -> str:
    """The budget with which half of the requests fall first."""
    return next((at(p.at) for p in points if p.success.rate >= _HALF), "never")


def adaptive_plots(record: Adaptive | None) -> dict[str, Callable[[], Figure]]:
    """The plot of a record, by its path relative to the card: what is optimized, or drawn often."""
    curves = record.curves if record else []
    drawn = [c for c in curves if c.access == "white box" or c.unit == "draws"]
    return {CURVES: partial(figure, drawn)} if drawn else {}


def figure(curves: Sequence[Curve]) -> Figure:
    """One panel for each curve of a record, success against the budget in every arm."""
    rows = ceil(len(curves) / _COLUMNS)
    drawing = Figure(figsize=(WIDTH, 1.0 + 1.75 * rows))
    titled(
        drawing,
        "Success of attackers against their budget",
        "steering off gray, with a safety prompt green, on blue (dotted: answers on topic), along "
        "a random direction purple; 95 % intervals",
    )
    panels = list(drawing.subplots(rows, _COLUMNS, squeeze=False).flat)
    for axes, curve in zip(panels, curves, strict=False):
        _panel(axes, curve)
    for axes in panels[len(curves) :]:
        axes.set_visible(False)
    return drawing


def _panel(axes: Axes, curve: Curve) -> None:
    axes.set_title(f"{curve.attack}\n{curve.shown}: {curve.goal}", fontsize=8.5)
    budgets = list(dict.fromkeys(point.at for point in curve.points))
    arms = [arm for arm in _COLORS if any(p.arm == arm for p in curve.points)]
    for place, arm in enumerate(arms):
        shift = 0.12 * (place - (len(arms) - 1) / 2)
        _points(axes, [p for p in curve.points if p.arm == arm], budgets, shift)
    if curve.goal == "answered":
        named = [(p.on_topic, p.success.n) for p in curve.points if p.arm == STEERED]
        shares = [100 * count / n for count, n in named if count is not None]
        axes.plot(range(len(shares)), shares, ":", color=BLUE, linewidth=1.6)
    axes.set_xticks(range(len(budgets)), labels=[at(budget) for budget in budgets], fontsize=8)
    axes.set_xlabel(curve.unit, fontsize=8, labelpad=1)
    axes.set_ylim(-6, 106)
    axes.set_yticks([0, 50, 100], labels=["0", "50", "100 %"], fontsize=8)
    axes.grid(axis="y", color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)


def _points(
    axes: Axes, points: Sequence[Point], budgets: Sequence[float | None], shift: float
) -> None:
    color = _COLORS[points[0].arm]
    x = [budgets.index(point.at) + shift for point in points]
    axes.plot(x, [100 * p.success.rate for p in points], color=color, linewidth=1.4)
    for place, point in zip(x, points, strict=True):
        ends = [100 * point.success.low, 100 * point.success.high]
        axes.plot([place, place], ends, color=color, linewidth=1.0, alpha=0.6)
        face = "white" if point.arm == REFERENCE else color
        axes.plot(place, 100 * point.success.rate, "o", color=color, markersize=3.5,
                  markerfacecolor=face)  # fmt: skip
