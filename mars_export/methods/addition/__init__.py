"""Constant addition: a multiple of the refusal direction is added, whatever the request.

Sources: Turner et al., arXiv 2308.10248 (ActAdd); Rimsky et al., arXiv 2312.06681 (CAA); Arditi et
al., arXiv 2406.11717 (difference in means at its own layer, at every position).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mars_export.methods.addition.record import AdditionOptions, AdditionRecord
from mars_export.methods.base import (
    Artefact,
    ArtefactRecord,
    Difference,
    Method,
    MethodOptions,
)
from mars_export.methods.comparison import compare_directions

if TYPE_CHECKING:
    import torch

    from mars_export.calibration.data import CalibrationData

__all__ = ["ADDITION"]


class _Addition(Method):
    name = "addition"
    title = "constant addition"
    paper = "2406.11717"
    Options = AdditionOptions
    Record = AdditionRecord
    summary = (
        "The same vector is added to the output of one decoder layer for every request: a multiple "
        "of the difference between the mean activations on harmful and on harmless *text*. There "
        "is no gate and no re-centering, so harmless requests are pushed toward refusal as well. "
        "It is the usual baseline of the literature, and shows what a gate is worth."
    )
    formula = "h <- h + a R r"
    citations = (
        "Method: Refusal in Language Models Is Mediated by a Single Direction, "
        "[arXiv 2406.11717](https://arxiv.org/abs/2406.11717)",
        "Steering Llama 2 via Contrastive Activation Addition, "
        "[arXiv 2312.06681](https://arxiv.org/abs/2312.06681)",
        "Steering Language Models With Activation Engineering, "
        "[arXiv 2308.10248](https://arxiv.org/abs/2308.10248)",
    )
    limits = (
        "Every request is pushed, so harmless ones may be refused: read the over-refusal rates.",
        "A push at every position can damage fluency; a smaller coefficient damages it less.",
    )
    threats = (
        "**Use of the direction itself.** It is stored in a named tensor (`push` of the steered "
        "layer): anybody can subtract it again, or subtract it from the base, which is a known way "
        "to make a model comply.",
    )

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:
        from mars_export.methods.addition.method import calibrate

        assert isinstance(options, AdditionOptions)
        return calibrate(data, options)

    def longest_push(self, artefact: ArtefactRecord) -> float | None:
        assert isinstance(artefact.record, AdditionRecord)
        return abs(artefact.record.coefficient) * artefact.record.separation

    def compare(
        self,
        rules: Mapping[str, Any],  # noqa: ARG002
        tensors: Mapping[str, torch.Tensor],
        artefact: Artefact,
    ) -> list[Difference]:
        """Compare the direction; the length is the user's choice and the sign is that of both."""
        return [compare_directions(tensors["push"], artefact.tensors["push"])]


ADDITION = _Addition()
