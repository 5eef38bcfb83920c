"""The plot of a RAI calibration: what each threshold touches."""

from matplotlib.figure import Figure

from mars_export.common.plotting import BLUE, GRAY, INK, ORANGE, WIDTH, titled
from mars_export.methods.base import ArtefactRecord
from mars_export.methods.rai.record import rai_record

__all__ = ["curve"]


def curve(artefact: ArtefactRecord) -> Figure:
    """Shares of visual tokens and of stimuli above each threshold, of every modality."""
    record = rai_record(artefact)
    drawing = Figure(figsize=(WIDTH, 3.4))
    titled(
        drawing,
        "What a threshold touches",
        "neutral stimuli that did not choose it; solid = visual tokens, dashed = stimuli with at "
        "least one",
    )
    panels = drawing.subplots(1, len(record.visual), sharey=True, squeeze=False)[0]
    for axes, (modality, visual) in zip(panels, record.visual.items(), strict=True):
        x = [point.threshold for point in visual.curve]
        axes.plot(x, [point.tokens for point in visual.curve], "o-", color=BLUE, markersize=4)
        axes.plot(x, [point.stimuli for point in visual.curve], "o--", color=ORANGE, markersize=4)
        axes.axvline(visual.threshold, color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
        axes.annotate(
            "chosen (t)", (visual.threshold, 1.0), xycoords=("data", "axes fraction"),
            xytext=(0, 3), textcoords="offset points", ha="center", va="bottom", fontsize=8.5,
        )  # fmt: skip
        axes.set_yscale("symlog", linthresh=1e-4)
        axes.set_ylim(0, 1)
        axes.set_xlabel(f"threshold of the cosine, {modality}", fontsize=9)
        axes.grid(axis="y", color=GRAY, alpha=0.2)
        axes.tick_params(labelsize=8.5)
    panels[0].set_ylabel("share above it", fontsize=9)
    return drawing
