"""A random direction where the checkpoint steers, as long as its longest push.

What a push of that length does by being a push: it shows how much of an effect is the direction's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from mars_export.common.errors import ExportError
from mars_export.common.header import Header
from mars_export.evaluation.baselines.base import Batch
from mars_export.evaluation.baselines.hooks import Change, Columns, columns, steered_answers
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded
from mars_export.methods import method_named
from mars_export.methods.base import ArtefactRecord

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit:
    """A vector (d,) float32 for each steered layer, and the policy of positions."""

    fits_text: ClassVar = False
    headers: list[Header]
    pushes: dict[int, torch.Tensor]
    positions: str

    @property
    def detail(self) -> str:
        """Where and how far."""
        layers = " and ".join(map(str, self.pushes))
        length = float(next(iter(self.pushes.values())).norm())
        return f"length {length:.3g} at layer {layers}, as the longest push of the steering"

    @classmethod
    def require(cls, record: ArtefactRecord) -> None:
        """Refuse a checkpoint whose pushes have no bound, or that steers no layer."""
        method = method_named(record.method)
        if not record.layers or method.longest_push(record) is None:
            raise ExportError(
                f"--arm random-direction: {method.title} pushes no decoder layer by a bounded "
                "length to be compared with; leave this arm out"
            )

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Draw the directions; the seed is that of the calibration."""
        record = study.record
        length = method_named(record.method).longest_push(record)
        assert length is not None
        width = record.source.hidden_size
        pushes = {}
        for layer in record.layers:
            source = torch.Generator().manual_seed(record.source.seed * 1000 + layer)
            drawn = torch.randn(width, generator=source, dtype=torch.float64)
            pushes[layer] = (length * drawn / drawn.norm()).float()
        return cls(record.source.headers, pushes, str(record.rules["positions"]))

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Add the vectors where the checkpoint would push."""
        at = columns(batch.inputs, self.headers)
        changes = {layer: self._change(push, at) for layer, push in self.pushes.items()}
        return steered_answers(loaded, batch, changes, at)

    def _change(self, push: torch.Tensor, at: Columns) -> Change:
        def change(h: torch.Tensor, prompt: bool) -> torch.Tensor:
            added = push.to(h.device)
            if self.positions == "all":
                return h + added
            if not prompt:
                return h
            chosen = at.up_to_last() if self.positions == "prompt" else at.headers
            return h + chosen.to(h.device).unsqueeze(-1) * added

        return change
