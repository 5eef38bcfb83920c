"""ShiftDC (arXiv 2502.13095): what a picture moves along the safety axis is taken back.

The model captions the picture for the request; the request with the caption instead of the picture
says where its state would lie. At the end of the assistant header, once, the difference of the two
states loses its part along the direction from harmless to harmful text: there the state lies where
that of the caption does.
Ours: the layers are the same share of the depth (from 10/32 on); the difference is taken from the
state as it arrives, already corrected before, so that nothing is left of it after each layer, where
the released code takes it from a pass without corrections; the wording for the captions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import torch

from mars_export.common.header import Header
from mars_export.evaluation.baselines.base import Batch, Fitted
from mars_export.evaluation.baselines.captions import captions, described
from mars_export.evaluation.baselines.hooks import (
    Change,
    Columns,
    columns,
    states_at,
    steered_answers,
    with_costs,
)
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded
from mars_export.inputs.requests import Request

__all__ = ["Fit", "caption_prompt"]

_FIRST: Final = 10 / 32
"""Share of the depth from which on layers are corrected."""


@dataclass(frozen=True)
class Fit(Fitted):
    """The axis of every layer, (L, d) float32 unit vectors, and the first layer."""

    headers: list[Header]
    axes: torch.Tensor
    first: int

    @property
    def detail(self) -> str:
        """Where."""
        return f"layers {self.first} to {len(self.axes) - 1}"

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Take the directions of the text.

        Raises:
            UnsteerableError: There are no pictures.
        """
        study.require_media()
        axes = study.measured.statistics.direction.float()
        return cls(study.headers, axes, int(_FIRST * len(axes)))

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Text is answered as it is; media are captioned first."""
        if not any(request.conversation_media for request in batch.requests):
            longest, seed = batch.max_new_tokens, batch.seed
            return loaded.answer(batch.inputs, longest, steered=False, seed=seed)
        texts, costs = captions(loaded, batch.requests, caption_prompt)
        plain = loaded.inputs(
            [described(request, own) for request, own in zip(batch.requests, texts, strict=True)]
        )
        states, cost = states_at(loaded, plain, columns(plain, self.headers))
        at = columns(batch.inputs, self.headers)
        changes = {
            layer: self._change(self.axes[layer], states[layer], at)
            for layer in range(self.first, len(self.axes))
        }
        return with_costs(steered_answers(loaded, batch, changes, at), [*costs, cost])

    def _change(self, axis: torch.Tensor, goal: torch.Tensor, at: Columns) -> Change:
        """Move the last header along the axis to where the goals (B, d) lie."""

        def change(h: torch.Tensor, prompt: bool) -> torch.Tensor:
            if not prompt:
                return h
            rows = torch.arange(len(h), device=h.device)
            last, r = at.last.to(h.device), axis.to(h.device)
            shift = (h[rows, last] - goal.to(h.device)) @ r
            after = h.clone()
            after[rows, last] -= shift.unsqueeze(1) * r
            return after

        return change


def caption_prompt(request: Request, name: str) -> str:
    """What asks for the caption of a picture or a clip of a request."""
    return f"Describe the {name} in one sentence, with this request in mind: {request.prompt}"
