"""Refusal rates by modality and label, steering off and on, with 95 % intervals."""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mars_export.card.results import cells_by_arm
from mars_export.common.plotting import BLUE, GREY, LIGHT, WIDTH, bare, titled
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import Cell, Report

__all__ = ["figure"]

_PANELS: Final = {
    True: "Harmful requests: right is better",
    False: "Harmless requests: left is better",
}
_COLOUR: Final[dict[str, str]] = {"off": GREY, "on": BLUE}
_LIFT: Final[dict[str, float]] = {"off": 0.17, "on": -0.17}


def figure(report: Report) -> Figure:
    """Two panels side by side, one row per modality, one interval per arm."""
    table = cells_by_arm(report)
    groups = {
        harmful: {m: cells for (h, m), cells in table.items() if h == harmful}
        for harmful in _PANELS
    }
    rows = max(len(group) for group in groups.values())
    drawing = Figure(figsize=(WIDTH, 1.55 + 0.75 * rows))
    titled(
        drawing,
        "Share of requests refused, steering off and on",
        f"same weights and requests; dots with Wilson 95 % intervals; judge: {report.judge}, "
        "style of the response, not harm",
    )
    for axes, (harmful, title) in zip(drawing.subplots(1, 2), _PANELS.items(), strict=True):
        _panel(axes, groups[harmful], title)
    return drawing


def _panel(axes: Axes, group: dict[Modality, dict[str, Cell]], title: str) -> None:
    axes.set_title(title)
    for row, cells in enumerate(group.values()):
        for arm, cell in cells.items():
            _interval(axes, row - _LIFT[arm], cell)
    axes.set_yticks(range(len(group)), labels=list(group))
    axes.set_ylim(len(group) - 0.4, -0.6)
    axes.set_xlim(-3, 103)
    axes.set_xticks([0, 25, 50, 75, 100], labels=["0", "25", "50", "75", "100 %"])
    axes.grid(axis="x", color=LIGHT, linewidth=0.7)
    axes.set_axisbelow(True)
    bare(axes)


def _interval(axes: Axes, y: float, cell: Cell) -> None:
    color = _COLOUR[cell.arm]
    rate = cell.refused
    axes.plot([100 * rate.low, 100 * rate.high], [y, y], color=color, linewidth=2.2)
    axes.plot(
        100 * rate.rate, y, "o", markersize=7, markeredgewidth=1.6, color=color,
        markerfacecolor="white" if cell.arm == "off" else color,
    )  # fmt: skip
    right = rate.rate <= 0.5
    axes.annotate(
        f"{cell.arm} {rate.count}/{rate.n}",
        (100 * (rate.high if right else rate.low), y),
        xytext=(8 if right else -8, 0),
        textcoords="offset points",
        va="center",
        ha="left" if right else "right",
        fontsize=9,
        color=color,
    )
