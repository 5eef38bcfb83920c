"""How far apart harmful and harmless requests lie at every layer, one panel per modality."""

from typing import Final

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mars_export.calibration.source import Group, Label
from mars_export.common.plotting import BLUE, GREY, LIGHT, ORANGE, WIDTH, titled
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import ArtefactRecord
from mars_export.methods.mars.record import MarsRecord, mars_record

__all__ = ["figure"]

_COLOR: Final[dict[Label, str]] = {"harmful": ORANGE, "harmless": BLUE}


def figure(artefact: ArtefactRecord) -> Figure:
    """Medians with the middle 80 % by layer: text alone, then beside each neutral visual."""
    record, modalities = mars_record(artefact), artefact.source.modalities
    drawing = Figure(figsize=(WIDTH, 3.6))
    titled(
        drawing,
        "Harmful and harmless requests along the refusal direction, by layer",
        "validation requests, re-centered; lines are medians, areas the middle 80 %; "
        f"chosen: layer {record.layer}",
    )
    panels = drawing.subplots(1, len(modalities), sharey=True, squeeze=False)[0]
    for axes, modality in zip(panels, modalities, strict=True):
        _panel(axes, record, modality)
        axes.set_xlim(-0.6, artefact.source.layers - 0.4)
    panels[0].set_yticks([0, 1], labels=["harmless text, mean", "harmful text, mean"])
    for axes in panels[1:]:
        axes.tick_params(left=False)
    return drawing


def _panel(axes: Axes, record: MarsRecord, modality: Modality) -> None:
    axes.set_title("text" if modality == "text" else f"text + neutral {modality}")
    axes.axvline(record.layer, color=GREY, linewidth=6, alpha=0.22)
    for y in (0, 1):
        axes.axhline(y, color=LIGHT, linewidth=0.9, zorder=0)
    for label, color in _COLOR.items():
        spread = [
            (s.layer, q.low, q.middle, q.high)
            for s in record.scores
            for q in s.groups
            if q.group == Group(label, modality)
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
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.set_xlabel("layer", fontsize=9)
