"""How far apart harmful and harmless requests lie at every layer, one panel per modality."""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mars_export.common.plotting import BLUE, GREY, LIGHT, ORANGE, WIDTH, titled
from mars_export.methods.mars.record import CalibrationRecord

__all__ = ["figure"]

_COLOUR: Final = {"harmful": ORANGE, "harmless": BLUE}


def figure(record: CalibrationRecord) -> Figure:
    """Medians with the middle 80 % by layer: text alone, then beside each neutral visual."""
    shown = ["text", *(f"text + neutral {m}" for m in record.shift if m != "text")]
    drawing = Figure(figsize=(WIDTH, 3.6))
    titled(
        drawing,
        "Harmful and harmless requests along the refusal direction, by layer",
        "validation requests, re-centered; lines are medians, areas the middle 80 %; "
        f"chosen: layer {record.layer}",
    )
    panels = drawing.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, name in zip(panels, shown, strict=True):
        _panel(axes, record, name)
    panels[0].set_yticks([0, 1], labels=["harmless text, mean", "harmful text, mean"])
    for axes in panels[1:]:
        axes.tick_params(left=False)
    return drawing


def _panel(axes: Axes, record: CalibrationRecord, name: str) -> None:
    axes.set_title(name)
    axes.axvline(record.layer, color=GREY, linewidth=6, alpha=0.22)
    for y in (0, 1):
        axes.axhline(y, color=LIGHT, linewidth=0.9, zorder=0)
    for label, color in _COLOUR.items():
        spread = [
            (s.layer, *s.groups[key])
            for s in record.scores
            if (key := f"{label} {name}") in s.groups
        ]
        if not spread:
            continue
        layers, low, middle, high = zip(*spread, strict=True)
        axes.fill_between(layers, low, high, color=color, alpha=0.22, linewidth=0)
        axes.plot(layers, middle, "o-", color=color, linewidth=1.6, markersize=3.5)
        below = label == "harmful"
        axes.annotate(
            label, (layers[-1], low[-1] if below else high[-1]), xytext=(0, -4 if below else 4),
            textcoords="offset points", ha="right", va="top" if below else "bottom",
            color=color, fontsize=9,
        )  # fmt: skip
    axes.set_xlim(-0.6, record.layers - 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("layer", fontsize=9)
