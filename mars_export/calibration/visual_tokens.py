"""Visual tokens as the text decoder takes them in: read before it runs, or pushed while it does."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any, TypeVar

import torch
from torch import nn

from mars_export.calibration.measurements import placeholders
from mars_export.calibration.meter import Meter
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import input_errors, is_out_of_memory
from mars_export.common.vocabulary import Modality
from mars_export.families import text_decoder
from mars_export.families.loading import free_memory
from mars_export.families.placement import input_device
from mars_export.inputs.requests import Request, collate
from mars_export.runtime.model_inputs import VISUAL_TOKENS, modality_shown, visual_columns
from mars_export.runtime.positions import highest_modality

__all__ = ["pushed", "read_visual_tokens", "visual_tokens"]

_T = TypeVar("_T")


class _StopError(Exception):
    """Ends a forward at the text decoder, whose layers need not run."""


def read_visual_tokens(
    model: Any,
    processor: Any,
    requests: Sequence[Request],
    read: Callable[[torch.Tensor], _T],
    batch_size: int,
    meter: Meter,
) -> list[_T]:
    """Show requests to the part of a model before its decoder layers.

    Args:
        model: A Transformers model.
        processor: Its processor.
        requests: Of one modality.
        read: What is kept of the visual tokens of a request, (n, d) float32.
        batch_size: Requests at once; halved when memory runs out.
        meter: Counts the requests.

    Returns:
        What `read` returned for each request.

    Raises:
        ExportError: A single request does not fit into memory, or the model fails.
    """
    kept: list[_T] = []
    while len(kept) < len(requests):
        batch = requests[len(kept) : len(kept) + batch_size]
        try:
            embeds, columns = _embedded(model, collate(processor, batch))
        except (RuntimeError, MemoryError) as error:
            if not is_out_of_memory(error):
                raise
            if batch_size == 1:
                raise ExportError(
                    "One request does not fit into memory; use a device with more memory or "
                    "--dtype bfloat16."
                ) from error
            batch_size //= 2
            free_memory()
            continue
        kept += [read(h[at].float()) for h, at in zip(embeds, columns, strict=True)]
        meter.advance(batch)
    return kept


@torch.inference_mode()
def _embedded(model: Any, batch: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """(B, T, d) what the decoder takes in, and (B, T) bool, which of it are visual tokens."""
    inputs = batch.to(input_device(model), model.dtype)
    taken: list[torch.Tensor] = []

    def take(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        taken.append(kwargs["inputs_embeds"])
        raise _StopError

    handle = text_decoder(model).register_forward_pre_hook(take, with_kwargs=True)
    try:
        with input_errors("the model fails", "check its config.json"), suppress(_StopError):
            model(**inputs, use_cache=False, logits_to_keep=1)
    finally:
        handle.remove()
    ids, (embeds,) = inputs["input_ids"], taken
    columns = visual_columns(inputs, ids, ids, visual_tokens(model.config))
    return embeds, columns.to(embeds.device)


@contextmanager
def pushed(model: Any, rule: nn.Module, modalities: Sequence[Modality]) -> Iterator[None]:
    """Push the visual tokens of every forward of a base model, as its checkpoint will.

    Args:
        model: A Transformers model.
        rule: A `VisualRule`.
        modalities: In the order of the rule's tensors.
    """
    shown, tokens = placeholders(model.config), visual_tokens(model.config)
    inputs: dict[str, Any] = {}

    def note(_module: Any, _args: Any, kwargs: dict[str, Any]) -> None:
        inputs.update(kwargs)

    def push(_module: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        h, ids = kwargs["inputs_embeds"], inputs["input_ids"]
        modality = highest_modality(modality_shown(inputs, ids, ids, shown, modalities))
        columns = visual_columns(inputs, ids, ids, tokens).to(h.device)
        at, modality = columns.nonzero(as_tuple=True), modality.to(h.device)
        context = torch.stack([modality, *[torch.zeros_like(modality)] * 2], -1)
        after, _ = rule.to(h.device)(h[at].float(), context[at])
        return args, {**kwargs, "inputs_embeds": h.index_put(at, after.to(h.dtype))}

    handles = [
        model.register_forward_pre_hook(note, with_kwargs=True),
        text_decoder(model).register_forward_pre_hook(push, with_kwargs=True),
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def visual_tokens(config: Any) -> list[int]:
    """The tokens in whose place visual features stand."""
    found = (getattr(config, name, None) for name in VISUAL_TOKENS)
    return [token for token in found if isinstance(token, int)]
