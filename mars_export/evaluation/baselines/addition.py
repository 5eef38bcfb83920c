"""Constant addition (arXiv 2308.10248, 2312.06681, 2406.11717): h + R r, whatever the request.

As `mars-export --method addition` calibrates it: the difference of the means, at every position,
at the layer where the push makes harmless text be refused most; the choice of the layer is ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from mars_export.common.header import Header
from mars_export.evaluation.baselines.base import Batch, Fitted
from mars_export.evaluation.baselines.hooks import columns, steered_answers
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded
from mars_export.methods.addition.method import trials
from mars_export.methods.addition.record import AdditionOptions

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit(Fitted):
    """A vector (d,) float32 and the layer to whose output it is added."""

    headers: list[Header]
    layer: int
    push: torch.Tensor

    @property
    def detail(self) -> str:
        """Where and how far."""
        return f"length {float(self.push.norm()):.3g} at every position of layer {self.layer}"

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Choose the layer."""
        text = study.measured.statistics
        layer = trials(study.measured, text, AdditionOptions())[0].layer
        push = text.separation[layer] * text.direction[layer]
        return cls(study.headers, layer, push.float())

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Add the vector at every position."""
        push = self.push.to(loaded.model.device)
        changes = {self.layer: lambda h, _prompt: h + push.to(h.device)}
        return steered_answers(loaded, batch, changes, columns(batch.inputs, self.headers))
