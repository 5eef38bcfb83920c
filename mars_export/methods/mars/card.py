"""What a model card says of MARS. Free of torch."""

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from mars_export.common.markdown import templates
from mars_export.methods.base import ArtefactRecord, MethodSection
from mars_export.methods.mars.record import KL_LIMIT, LayerScore, mars_record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["SCORES", "SEPARATION", "section"]

SCORES: Final = "assets/layer_scores.png"
SEPARATION: Final = "assets/layer_separation.png"

RHO: Final = "\N{GREEK SMALL LETTER RHO}"

SUMMARY: Final = (
    "The refusal direction r is the normalized difference between the mean activations on harmful "
    "and on harmless *text*. At the steered positions (see *position* below) the output h of one "
    "decoder layer is projected onto r, and β is subtracted: the average shift along r of the "
    "request's modality, measured on neutral stimuli. A gate then decides. At or below the origin "
    "o nothing happens; above it h moves along r, but never past c, the edge of the harmful text "
    f"data, and never by more than {RHO}R. Only the projection is re-centered; h itself is not."
)
FORMULA: Final = (
    "p = <h, r> - β(modality)\n"
    "gate = max(0, (p - o) / (p_u - o))\n"
    f"h <- h + min(κ R gate, max(0, c - p), {RHO} R) r"
)
CITATIONS: Final = (
    "Method: Harnessing Textual Refusal Directions for Multimodal Safety, "
    "[arXiv 2606.31876](https://arxiv.org/abs/2606.31876)",
    "Refusal direction: Refusal in Language Models Is Mediated by a Single Direction, "
    "[arXiv 2406.11717](https://arxiv.org/abs/2406.11717)",
)
LIMITS: Final = (
    "Steering acts where an answer begins. It cannot stop an answer that somebody else began "
    "(assistant prefill) or one that turns harmful later.",
    "Re-centering is one number per modality, measured on neutral stimuli. Real pictures may shift "
    "activations differently, so some over-refusal can remain.",
    "The paper leaves parts of the method open, and the authors' code was not available: the gate, "
    "the strength rule and the layer scores are a reconstruction.",
)
THREATS: Final = (
    "**Use of the direction itself.** It is stored in a named tensor (`direction` of the steered "
    "layer); removing it from the activations is a known way to make a model comply.",
    "**Adaptive attackers**, who can optimize a prompt or a picture until the gate stays shut.",
    "**Prefill and edited templates**: the model is steered at the end of an assistant header; "
    "this is not known to stop an answer that has begun behind it.",
)


def section(artefact: ArtefactRecord) -> MethodSection:
    """The section of a checkpoint's card, from its calibration."""
    record, plots = mars_record(artefact), _plots(artefact)
    finalists = [score for score in record.scores if score.induced is not None]
    template = templates("mars_export.methods.mars").get_template("card.md.j2")
    details = template.render(
        record=record,
        source=artefact.source,
        finalists=finalists,
        by_rule=_best(finalists) == record.layer,
        kl_limit=KL_LIMIT,
        plots=plots,
        SCORES=SCORES,
        SEPARATION=SEPARATION,
    )
    return MethodSection(
        summary=SUMMARY,
        formula=FORMULA,
        details=details.strip(),
        citations=CITATIONS,
        limits=LIMITS,
        threats=THREATS,
        plots=plots,
    )


def _plots(artefact: ArtefactRecord) -> dict[str, Callable[[], "Figure"]]:
    from mars_export.methods.mars import figures

    scores = mars_record(artefact).scores
    plots: dict[str, Callable[[], Figure]] = {}
    if scores:
        plots[SCORES] = partial(figures.scores, artefact)
    if any(score.groups for score in scores):
        plots[SEPARATION] = partial(figures.separation, artefact)
    return plots


def _best(finalists: Sequence[LayerScore]) -> int | None:
    """The layer with the greatest lift among those that induce refusal and spare harmless text.

    The thresholds are those of the refusal-direction paper (arXiv 2406.11717).
    """
    passed = [
        s
        for s in finalists
        if (s.induced or 0) > 0 and (math.inf if s.kl is None else s.kl) <= KL_LIMIT
        if (s.lift or 0) > 0
    ]
    best = max(passed, key=lambda s: s.lift or 0, default=None)
    return best.layer if best else None
