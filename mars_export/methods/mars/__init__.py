"""MARS (arXiv 2606.31876): gated, bounded steering along a text refusal direction."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from mars_export.methods.base import (
    Artefact,
    ArtefactRecord,
    Difference,
    Method,
    MethodOptions,
    MethodSection,
)
from mars_export.methods.mars.record import MarsOptions, MarsRecord, mars_record

if TYPE_CHECKING:
    import torch

    from mars_export.calibration.data import CalibrationData

__all__ = ["MARS"]


class _Mars(Method):
    name = "mars"
    suffix = "MARS"
    title = "MARS (modality-agnostic refusal steering)"
    paper = "2606.31876"
    tunable = True
    Options = MarsOptions
    Record = MarsRecord

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:
        from mars_export.methods.mars.method import calibrate

        assert isinstance(options, MarsOptions)
        return calibrate(data, options)

    def longest_push(self, artefact: ArtefactRecord) -> float | None:
        record = mars_record(artefact)
        own = (strength.radius for strength in record.strengths.values())
        return max([record.radius, *own]) * record.separation

    def card(self, artefact: ArtefactRecord) -> MethodSection:
        from mars_export.methods.mars.card import section

        return section(artefact)

    def compare(
        self, rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
    ) -> list[Difference]:
        from mars_export.methods.mars.drift import compare

        return compare(rules, tensors, artefact)


MARS = _Mars()
