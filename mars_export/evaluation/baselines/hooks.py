"""Answers while the output of decoder layers is changed, and what that changed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from mars_export.calibration.activations import LAST, recorded
from mars_export.common.errors import ExportError
from mars_export.common.header import Header
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.baselines.base import Batch
from mars_export.evaluation.generation import Answers, Loaded, SteeredPosition, clock
from mars_export.evaluation.overhead import Cost
from mars_export.families import decoder_layers
from mars_export.families.placement import input_device
from mars_export.runtime.positions import header_ends, last_column

__all__ = [
    "Change",
    "Columns",
    "Said",
    "changed",
    "columns",
    "said_of_batch",
    "states_at",
    "steered_answers",
    "with_costs",
]

Change = Callable[[torch.Tensor, bool], torch.Tensor]
"""From the output of a layer, (B, T, d) float32, and whether it is that of the prompt, to what
takes its place."""


@dataclass
class Said:
    """What a baseline did where an answer begins; as `SteeredPosition`."""

    position: int
    modality: Modality
    strength: float | None
    gate: float | None = None
    calibrated: bool | None = None
    layer: int = 0


@dataclass(frozen=True)
class Columns:
    """Where the assistant headers of a batch end.

    Attributes:
        headers: (B, T) bool, all of them.
        last: (B,) the last one of each row.
        position: (B,) the same, padding not counted.
    """

    headers: torch.Tensor
    last: torch.Tensor
    position: torch.Tensor

    def up_to_last(self) -> torch.Tensor:
        """(B, T) bool: columns up to the last header."""
        column = torch.arange(self.headers.shape[1], device=self.headers.device)
        return column <= self.last.unsqueeze(1)


def columns(inputs: Any, headers: Sequence[Header]) -> Columns:
    """Find the headers of a batch.

    Raises:
        ExportError: A prompt shows none.
    """
    hits = header_ends(inputs["input_ids"], [header.model_dump() for header in headers])
    last = last_column(hits)[:, 0]
    if bool((last < 0).any()):
        raise ExportError("a prompt shows no assistant header, so no baseline can steer it")
    real = inputs["attention_mask"].cumsum(1)
    return Columns(hits, last, real.gather(1, last.unsqueeze(1))[:, 0] - 1)


def steered_answers(
    loaded: Loaded,
    batch: Batch,
    changes: Mapping[int, Change],
    at: Columns,
    gates: Callable[[], Sequence[float]] | None = None,
) -> Answers:
    """Generate while the layers' outputs are changed.

    Args:
        loaded: Its steering is turned off.
        batch: What to answer.
        changes: By decoder layer.
        at: Of the batch; the change at the last header is what the answers say of it.
        gates: One of each row, asked for afterwards.
    """
    rows = torch.arange(len(at.last))
    lengths: list[torch.Tensor] = []
    shares: list[torch.Tensor] = []

    def watch(before: torch.Tensor, after: torch.Tensor) -> None:
        where = rows.to(before.device), at.last.to(before.device)
        length = (after[where] - before[where]).norm(dim=-1)
        lengths.append(length.cpu())
        shares.append((length / before[where].norm(dim=-1)).cpu())

    with changed(loaded.model, changes, watch, at.headers.shape[1]):
        answers = loaded.answer(batch.inputs, batch.max_new_tokens, steered=False, seed=batch.seed)
    strength, share = (torch.stack(parts).amax(0).tolist() for parts in (lengths, shares))
    every: Sequence[float | None] = [None] * len(rows) if gates is None else gates()
    said: list[list[SteeredPosition]] = [
        [Said(position, request.modality, length, gate)]
        for position, request, length, gate in zip(
            at.position.tolist(), batch.requests, strength, every, strict=True
        )
    ]
    return replace(answers, steered=said, pushes=[round(value, 6) for value in share])


def said_of_batch(
    batch: Batch, acted: Sequence[bool], gates: Sequence[float | None] | None = None
) -> list[list[SteeredPosition]]:
    """What a baseline without a push says of each request: whether it did something, and a gate."""
    ends = (batch.inputs["attention_mask"].sum(1) - 1).tolist()
    every = gates or [None] * len(ends)
    return [
        [Said(end, request.modality, None if did else 0.0, gate)]
        for end, request, did, gate in zip(ends, batch.requests, acted, every, strict=True)
    ]


@torch.inference_mode()
def states_at(loaded: Loaded, inputs: Any, at: Columns) -> tuple[torch.Tensor, Cost]:
    """(L, B, d) float32, on the CPU, of an unsteered pass at the last headers; what it took."""
    loaded.model.steering.enabled = False
    stop = clock(input_device(loaded.model))
    with recorded(loaded.model, at.last) as layers:
        loaded.model(**inputs, use_cache=False, logits_to_keep=LAST)
    return torch.stack(layers), stop(1)


def with_costs(answers: Answers, costs: Sequence[Cost]) -> Answers:
    """The answers with what else it took to get them."""
    every = [answers.cost, *costs]
    peaks = [cost.peak for cost in every if cost.peak is not None]
    total = Cost(
        seconds=sum(cost.seconds for cost in every),
        steps=sum(cost.steps for cost in every),
        peak=max(peaks, default=None),
    )
    return replace(answers, cost=total)


@contextmanager
def changed(
    model: Any,
    changes: Mapping[int, Change],
    watch: Callable[[torch.Tensor, torch.Tensor], None] = lambda _before, _after: None,
    length: int = 0,
) -> Iterator[None]:
    """Change what decoder layers give while the context is open; first comes the prompt.

    Args:
        model: A Transformers model with a text decoder.
        changes: By layer.
        watch: Told of the prompt's output of each such layer before and after.
        length: Columns of the prompt. Where a decoder runs only the last ones through a layer, the
            others are zeros, and what becomes of them is dropped.
    """
    seen: set[int] = set()

    def hook(layer: int) -> Any:
        def change(_module: Any, _args: Any, output: Any) -> Any:
            hidden = output[0] if isinstance(output, tuple) else output
            prompt, before = layer not in seen, hidden.float()
            seen.add(layer)
            absent = max(0, length - before.shape[1]) if prompt else 0
            before = nn.functional.pad(before, (0, 0, absent, 0)) if absent else before
            after = changes[layer](before, prompt)
            if prompt:
                watch(before, after)
            if after is before:
                return None
            after = after[:, absent:].to(hidden.dtype)
            return (after, *output[1:]) if isinstance(output, tuple) else after

        return decoder_layers(model)[layer].register_forward_hook(change)

    handles = [hook(layer) for layer in changes]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
