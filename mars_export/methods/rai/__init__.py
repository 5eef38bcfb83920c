"""RAI (arXiv 2602.03402): visual tokens near unsafe words are pushed to those words."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

from mars_export.common.names import PLOTS
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import (
    Artefact,
    ArtefactRecord,
    Difference,
    Method,
    MethodOptions,
    MethodSection,
)
from mars_export.methods.rai.record import RaiOptions, RaiRecord, rai_record

if TYPE_CHECKING:
    import torch
    from matplotlib.figure import Figure

    from mars_export.calibration.data import CalibrationData

__all__ = ["RAI"]

_CURVE: Final = f"{PLOTS}/visual_tokens.png"


class _Rai(Method):
    name = "rai"
    suffix = "RAI"
    title = "RAI (push of visual tokens near unsafe words)"
    paper = "2602.03402"
    takes = ("text", "image", "video")
    site = "projector"
    suites = ("alarming",)
    Options = RaiOptions
    Record = RaiRecord
    summary = (
        "Before the first decoder layer, every visual token is compared with prototypes of unsafe "
        "words, which are means of the model's own token embeddings. A token whose cosine with a "
        "prototype is above a threshold is pushed along it, by the cosine. So what a picture shows "
        "of such a word is brought nearer to the word itself, to which the model learned to react "
        "in text. Text is never changed, nor a visual token below the threshold."
    )
    formula = "h <- h + g sum_k s_k u_k  over the words k with  s_k = cos(h, u_k) > t"
    citations = ("Method: RAI, [arXiv 2602.03402](https://arxiv.org/abs/2602.03402)",)
    limits = (
        "The score of a visual token does not depend on the question: a picture of a knife is "
        "pushed alike beside every text. So refusals of harmless questions about alarming "
        "pictures (the suite `alarming`) are measured as well.",
        "A harmless picture with a harmful text, or one that is harmful only together with its "
        "text, is not what it looks for.",
        "The sources that could be read name neither the threshold nor the words; both are ours. "
        "The words are English.",
        "Where a vision tower also feeds later layers (DeepStack), those features stay as they "
        "are.",
    )
    threats = (
        "**Below the threshold.** The cosine can be differentiated, so somebody with the weights "
        "can make a picture whose tokens all stay below it.",
        "**Use of the words themselves.** They are stored in a named tensor (`prototypes` of the "
        "text decoder). They are means of token embeddings, which the base has as well.",
    )

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:
        from mars_export.methods.rai.method import calibrate

        assert isinstance(options, RaiOptions)
        return calibrate(data, options)

    def card(self, artefact: ArtefactRecord) -> MethodSection:
        section = super().card(artefact)
        if not any(visual.curve for visual in rai_record(artefact).visual.values()):
            return section

        def curve() -> Figure:
            from mars_export.methods.rai import figures

            return figures.curve(artefact)

        details = f"{section.details}\n\n![Shares of tokens and stimuli by threshold]({_CURVE})"
        return replace(section, details=details, plots={_CURVE: curve})

    def must_act(self, modality: Modality) -> bool:  # noqa: ARG002
        """Most pictures have no token near a word."""
        return False

    def acts_on(self, modality: Modality) -> bool:
        return modality != "text"

    def compare(
        self,
        rules: Mapping[str, Any],
        tensors: Mapping[str, torch.Tensor],
        artefact: Artefact,
    ) -> list[Difference]:
        from mars_export.methods.rai.drift import compare

        return compare(rules, tensors, artefact)


RAI = _Rai()
