"""MARS and RAI together: RAI acts first, and MARS is calibrated on top of it."""

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
from mars_export.methods.mars import MARS
from mars_export.methods.mars_rai.record import MarsRaiOptions, MarsRaiRecord, rai_part
from mars_export.methods.rai import RAI

if TYPE_CHECKING:
    import torch

    from mars_export.calibration.data import CalibrationData

__all__ = ["MARS_RAI"]


class _MarsRai(Method):
    name = "mars+rai"
    suffix = "MARS-RAI"
    title = "MARS with RAI before it"
    paper = MARS.paper
    Options = MarsRaiOptions
    Record = MarsRaiRecord

    @property
    def parts(self) -> tuple[Method, ...]:
        return (RAI, MARS)

    def calibrate(self, data: CalibrationData, options: MethodOptions) -> Artefact:
        from mars_export.methods.mars_rai.method import calibrate

        assert isinstance(options, MarsRaiOptions)
        return calibrate(data, options)

    def longest_push(self, artefact: ArtefactRecord) -> float | None:
        return MARS.longest_push(artefact)

    def card(self, artefact: ArtefactRecord) -> MethodSection:
        """That of MARS, then that of RAI."""
        mars, rai = MARS.card(artefact), RAI.card(rai_part(artefact))
        return replace(
            mars,
            summary=f"{rai.summary}\n\nMARS is calibrated on the model with that in place. "
            f"{mars.summary}",
            formula=f"{rai.formula}\n{mars.formula}",
            details=f"{mars.details}\n\nRAI, before the first layer:\n\n{rai.details}",
            citations=mars.citations + rai.citations,
            limits=mars.limits + rai.limits,
            threats=mars.threats + rai.threats,
            plots={**mars.plots, **rai.plots},
        )

    def compare(
        self, rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
    ) -> list[Difference]:
        part = Artefact(rai_part(artefact.record), artefact.tensors)
        return [
            *MARS.compare(rules, tensors, artefact),
            *RAI.compare(rules, tensors, part),
        ]


MARS_RAI = _MarsRai()
