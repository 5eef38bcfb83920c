"""Random directions where the checkpoint steers, as long as its longest push.

They show how much of an effect comes from a push of that length and not from its direction. Every
request has a direction of its own, drawn from its words and its media: a single one may refuse
everything or nothing, and only the mean over many says something.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mars_export.common.errors import UnsteerableError
from mars_export.common.header import Header
from mars_export.evaluation.baselines.base import Batch, Fitted
from mars_export.evaluation.baselines.hooks import Change, Columns, columns, steered_answers
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Answers, Loaded
from mars_export.inputs.requests import Request
from mars_export.inputs.sounds import Sound
from mars_export.methods import method_named

__all__ = ["Fit"]


@dataclass(frozen=True)
class Fit(Fitted):
    """A length, the layers that are pushed, and the policy of positions."""

    fits_text: ClassVar = False
    headers: list[Header]
    layers: tuple[int, ...]
    length: float
    width: int
    positions: str
    seed: int

    @property
    def detail(self) -> str:
        """Where and how far."""
        layers = " and ".join(map(str, self.layers))
        return f"one for each request, length {self.length:.3g} at layer {layers}"

    @classmethod
    def fit(cls, study: Study) -> Fit:
        """Take what the checkpoint says of itself.

        Raises:
            UnsteerableError: Its pushes have no bound, or it steers no decoder layer.
        """
        record, source = study.record, study.record.source
        method = method_named(record.method)
        length = method.longest_push(record)
        if length is None or not record.layers:
            raise UnsteerableError(
                f"{method.title} pushes no decoder layer by a bounded length to compare with"
            )
        positions = str(record.rules["positions"])
        layers = tuple(record.layers)
        return cls(source.headers, layers, length, source.hidden_size, positions, source.seed)

    def push(self, request: Request, layer: int) -> torch.Tensor:
        """(d,) float32 of a request; the same request has the same one."""
        digest = hashlib.sha256(f"{self.seed} {layer} {request.prompt}".encode())
        for part in _shown(request):
            digest.update(part)
        seed = int.from_bytes(digest.digest()[:7], "big")
        source = torch.Generator().manual_seed(seed)
        drawn = torch.randn(self.width, generator=source, dtype=torch.float64)
        push: torch.Tensor = (self.length * drawn / drawn.norm()).float()
        return push

    def answer(self, loaded: Loaded, batch: Batch) -> Answers:
        """Add the vectors where the checkpoint would push."""
        at = columns(batch.inputs, self.headers)
        pushes = {
            layer: torch.stack([self.push(request, layer) for request in batch.requests])
            for layer in self.layers
        }
        changes = {layer: self._change(push, at) for layer, push in pushes.items()}
        return steered_answers(loaded, batch, changes, at)

    def _change(self, push: torch.Tensor, at: Columns) -> Change:
        """push: (B, d)."""

        def change(h: torch.Tensor, prompt: bool) -> torch.Tensor:
            added = push.to(h.device).unsqueeze(1)
            if self.positions == "all":
                return h + added
            if not prompt:
                return h
            chosen = at.up_to_last() if self.positions == "prompt" else at.headers
            return h + chosen.to(h.device).unsqueeze(-1) * added

        return change


def _shown(request: Request) -> Iterator[bytes]:
    """Pixels of its pictures and clips, samples of its sounds."""
    for medium in request.conversation_media:
        parts: Any = medium.data if isinstance(medium.data, tuple) else (medium.data,)
        for part in parts:
            yield (part.samples if isinstance(part, Sound) else part).tobytes()
