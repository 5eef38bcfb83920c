"""RAS: the model reads a request again, and what reads as risky begins like a refusal."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mars_export.methods.base import Artefact, Difference, Method, MethodOptions
from mars_export.methods.comparison import LEAST_COSINE
from mars_export.methods.ras.record import RasOptions, RasRecord

if TYPE_CHECKING:
    import torch

    from mars_export.calibration.data import CalibrationData

__all__ = ["RAS"]

_SHIFT: Final = 1.0
"""Of the risk curve, in log-odds: a risk of one half becomes 0.73 or 0.27."""


class _Ras(Method):
    name = "ras"
    title = "RAS"
    paper = "2510.13698"
    takes = ("text", "image", "video")
    site = "generate"
    suffix = "RAS"
    needs = ("captions", "an answer before the answer")
    Options = RasOptions
    Record = RasRecord
    summary = (
        "Before it answers, the model describes what a picture or clip shows, and begins an answer "
        "to the request with that description and a safety instruction. The more this answer "
        "begins like a refusal, the more the first tokens of the real answer are drawn toward the "
        "states with which the model begins refusals. Everything happens inside `generate()`."
    )
    formula = (
        "S  = cos( sum_n g^n softmax(W mu_n), sum_n g^n softmax(W q_n) )\n"
        "r  = sigmoid( k (S - x0) )\n"
        "h <- (1 - r) h + r mu_n   on the first N tokens of the answer"
    )
    citations = (
        "Method: RAS, *Attention Misses Visual Risk*, "
        "[arXiv 2510.13698](https://arxiv.org/abs/2510.13698)",
    )
    limits = (
        "It acts in `generate()` alone: `forward`, `generate_batch` and serving engines raise.",
        "A request costs two more prompts and up to a caption of further tokens; captions of the "
        "same pictures are remembered.",
        "The risk curve is calibrated on text and neutral pictures, because the calibration set of "
        "the paper is not public.",
        "A model whose answers all begin alike, as one that thinks first, cannot be read so.",
    )
    threats = (
        "**Writing in a picture that misleads the description.** The risk is read from the "
        "model's own words.",
        "**Use of the prototypes themselves.** They are stored in a named tensor (`prototypes` of "
        "the text decoder): taken away from the states of the base instead of mixed in, they make "
        "a model begin less like a refusal.",
        "**An answer that was begun.** Only the first tokens of an answer are steered; what stands "
        "behind them is not.",
    )

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:
        from mars_export.methods.ras.method import calibrate

        assert isinstance(options, RasOptions)
        return calibrate(data, options)

    def compare(
        self,
        rules: Mapping[str, Any],  # noqa: ARG002
        tensors: Mapping[str, torch.Tensor],
        artefact: Artefact,
    ) -> list[Difference]:
        """Compare the states with which refusals begin, and the risk curve."""
        fresh = artefact.tensors
        middle, slope = tensors["curve"].tolist()
        shift = abs(float(fresh["curve"][0]) - middle) * slope
        pairs = zip(tensors["prototypes"].double(), fresh["prototypes"].double(), strict=True)
        cosine = min(float(a @ b / (a.norm() * b.norm())) for a, b in pairs)
        return [
            Difference(
                name="prototypes",
                value=cosine,
                limit=LEAST_COSINE,
                fits=cosine >= LEAST_COSINE,
                sentence=f"the states that begin refusals have cosine {cosine:.3f} with the stored "
                "ones",
            ),
            Difference(
                name="risk curve",
                value=shift,
                limit=_SHIFT,
                fits=shift <= _SHIFT,
                sentence=f"the risk of a request is off by {shift:.2f} in log-odds",
            ),
        ]


RAS = _Ras()
