"""MARS with the gate of ASTRA (arXiv 2411.16721): a cosine from a neutral center."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mars_export.methods.base import (
    Artefact,
    ArtefactRecord,
    Difference,
    Method,
    MethodOptions,
    MethodSection,
)
from mars_export.methods.mars.record import MarsOptions
from mars_export.methods.mars_cosine.record import CosineRecord

if TYPE_CHECKING:
    import torch

    from mars_export.calibration.data import CalibrationData

__all__ = ["MARS_COSINE"]


class _MarsCosine(Method):
    name = "mars-cosine"
    suffix = "MARS-cosine"
    title = "MARS with a cosine gate"
    paper = "2411.16721"
    Options = MarsOptions
    Record = CosineRecord
    summary = (
        "Direction, layer, re-centering and bounds are those of MARS; the gate is that of ASTRA. "
        "It is the cosine between r and the way from a neutral center to the output h of one "
        "decoder layer. The center is the mean of harmless text, moved along r by what the request "
        "shows, β. Unlike the gate of MARS it begins at the center itself, without an origin above "
        "what harmless requests need. h moves along r, never past c, the edge of the harmful text, "
        "and never by more than \N{GREEK SMALL LETTER RHO}R."
    )
    formula = (
        "v = h - center - β(modality, visual tokens of the turn, turn) r\n"
        "gate = max(0, cos(v, r))\n"
        "h <- h + min(κ R gate, max(0, c + β - <h, r>), \N{GREEK SMALL LETTER RHO} R) r"
    )
    limits = (
        "The gate opens above the neutral center, so about half of the harmless requests are "
        "pushed a little: it over-refuses more than MARS, the more the further states scatter.",
        "κ and \N{GREEK SMALL LETTER RHO} were tuned for the gate of MARS, which is 1 at harmful "
        "text; a cosine is less where states scatter.",
        "Steering acts where an answer begins. It cannot stop an answer that somebody else began "
        "(assistant prefill) or one that turns harmful later.",
    )

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:
        from mars_export.methods.mars_cosine.method import calibrate

        assert isinstance(options, MarsOptions)
        return calibrate(data, options)

    def longest_push(self, artefact: ArtefactRecord) -> float | None:
        record = artefact.record
        assert isinstance(record, CosineRecord)
        return record.radius * record.separation

    def card(self, artefact: ArtefactRecord) -> MethodSection:
        from mars_export.methods.mars.card import CITATIONS, DIRECTIONS, THREATS

        record = artefact.record
        assert isinstance(record, CosineRecord)
        gate = "Gate: ASTRA, [arXiv 2411.16721](https://arxiv.org/abs/2411.16721)"
        return replace(
            super().card(artefact),
            summary=f"{DIRECTIONS[record.direction]} {self.summary}",
            citations=(gate, *CITATIONS),
            threats=THREATS,
        )

    def compare(
        self, rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
    ) -> list[Difference]:
        from mars_export.methods.mars_cosine.drift import compare

        return compare(rules, tensors, artefact)


MARS_COSINE = _MarsCosine()
