"""Safety against over-refusal: where steering moves each modality, with 95 % intervals."""

import math
from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.card.results import cells_by_arm, plane_modalities
from mars_export.common.plotting import BLUE, GREY, INK, LIGHT, WIDTH, titled
from mars_export.evaluation.report import Cell, Report

__all__ = ["figure"]

_COLOUR: Final[dict[str, str]] = {"off": GREY, "on": BLUE}
_NEAR: Final = 8.0
"""Percentage points below which the two ends share one name and have no arrow."""


def figure(report: Report) -> Figure:
    """One panel per modality that was asked harmful and harmless; up and left is better."""
    table = cells_by_arm(report)
    both = plane_modalities(report)
    drawing = Figure(figsize=(WIDTH, 3.7))
    titled(
        drawing,
        "Safety against over-refusal, steering off → on",
        "crosses are Wilson 95 % intervals; best is the upper left corner; judge: "
        f"{report.judge}, style, not harm",
    )
    panels = drawing.subplots(1, len(both), sharex=True, sharey=True, squeeze=False)[0]
    for axes, modality in zip(panels, both, strict=True):
        _panel(axes, modality, table[True, modality], table[False, modality])
    panels[0].set_ylabel("harmful refused")
    return drawing


def _panel(axes: Axes, title: str, harmful: dict[str, Cell], harmless: dict[str, Cell]) -> None:
    axes.set_title(title)
    ends = [(100 * harmless[a].refused.rate, 100 * harmful[a].refused.rate) for a in _COLOUR]
    near = math.dist(*ends) <= _NEAR
    for (arm, color), at in zip(_COLOUR.items(), ends, strict=True):
        _cross(axes, at, harmful[arm], harmless[arm], color)
        if not near:
            _name(axes, arm, at, color)
    if near:
        _name(axes, "off, on", ends[1], INK)
    else:
        arrow = {"arrowstyle": "-|>", "color": INK, "shrinkA": 7, "shrinkB": 7, "lw": 1.2}
        axes.annotate("", ends[1], ends[0], arrowprops=arrow)
    axes.set_xlim(-4, 104)
    axes.set_ylim(-4, 104)
    axes.set_aspect("equal")
    axes.set_xticks([0, 50, 100], labels=["0", "50", "100 %"])
    axes.set_yticks([0, 50, 100], labels=["0", "50", "100 %"])
    axes.set_xlabel("harmless refused")
    axes.grid(color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)


def _cross(axes: Axes, at: tuple[float, float], harmful: Cell, harmless: Cell, color: str) -> None:
    x, y = at
    across, up = harmless.refused, harmful.refused
    axes.plot([100 * across.low, 100 * across.high], [y, y], color=color, linewidth=2.2)
    axes.plot([x, x], [100 * up.low, 100 * up.high], color=color, linewidth=2.2)
    face = color if harmful.arm == "on" else "white"
    axes.plot(x, y, "o", color=color, markersize=7, markerfacecolor=face, markeredgewidth=1.6)


def _name(axes: Axes, name: str, at: tuple[float, float], color: str) -> None:
    x, y = at
    axes.annotate(
        name, at, xytext=(-9 if x > 50 else 9, -6 if y > 50 else 6), textcoords="offset points",
        ha="right" if x > 50 else "left", va="top" if y > 50 else "bottom",
        color=color, fontsize=9.5,
    )  # fmt: skip
