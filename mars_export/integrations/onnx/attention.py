"""Attention of the decoder graph: masks by the kind of layer, and what a graph cannot follow.

Short probes would not show the latter: a graph that freezes a comparison of lengths is right until
a prompt is longer than the example.
"""

from collections.abc import Iterator
from typing import Any, Final

import torch

from mars_export.common.errors import ExportError

__all__ = ["attention_masks", "attention_windows", "refuse_frozen_positions"]

_FROZEN: Final = ("dynamic", "longrope")
"""Rotary embeddings that compare the length of a prompt in Python, which an export freezes."""

_ALL_SLIDE: Final = ("mistral",)
"""Decoders without kinds of layer, all of whose layers have the window, if one is set."""


def attention_masks(
    ids: torch.Tensor,
    mask: torch.Tensor,
    new: int,
    windows: dict[str, int | None],
    block_tokens: list[int],
) -> dict[str, torch.Tensor]:
    """Additive float32 masks (B, 1, n, S) of the last n columns over all S.

    A column sees itself and what is before it, padding excepted; where tokens of a picture are one
    block, as in Gemma 3, all of that block; in layers with a window, nothing further back than it.

    Args:
        ids: (B, S) tokens of all columns.
        mask: (B, S), 0 where a column is padding.
        new: n.
        windows: Kind of layer to the width of its window; None sees everything.
        block_tokens: Placeholders whose runs are blocks.
    """
    key = torch.arange(ids.shape[1], device=ids.device)[None, None]
    query = key[:, :, -new:].transpose(1, 2)
    seen = (key <= query).expand(ids.shape[0], -1, -1)
    if block_tokens:
        block = _blocks(ids, block_tokens)
        inside = block[:, -new:, None]
        seen = seen | ((inside == block[:, None]) & (inside > 0))
    seen = seen & (mask != 0)[:, None]
    made = {}
    for kind, window in windows.items():
        kept = seen if window is None else seen & (query - key < window)
        lowest = torch.finfo(torch.float32).min
        made[kind] = torch.where(kept, 0.0, lowest).to(torch.float32)[:, None]
    return made


def _blocks(ids: torch.Tensor, tokens: list[int]) -> torch.Tensor:
    """(B, S) number of the run of placeholders that a column belongs to, from 1; 0 for none."""
    inside = torch.zeros_like(ids, dtype=torch.bool)
    for token in tokens:
        inside = inside | (ids == token)
    before = torch.nn.functional.pad(inside, (1, 0))[:, :-1]
    return (inside & ~before).long().cumsum(1) * inside


def attention_windows(text: Any) -> dict[str, int | None]:
    """Kinds of layer in a text configuration and the width of their window; None sees everything.

    Raises:
        ExportError: for a kind that is not known here, or a window that no kind of layer has.
    """
    width = getattr(text, "sliding_window", None)
    if text.model_type in _ALL_SLIDE:
        return {"full_attention": None} if width is None else {"sliding_attention": width}
    kinds = sorted(set(getattr(text, "layer_types", None) or ["full_attention"]))
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    hidden = not hasattr(text, "layer_types") and width is not None
    if unknown or hidden or ("sliding_attention" in kinds and width is None):
        named = ", ".join(sorted(unknown)) or "a sliding window"
        raise ExportError(
            f"the decoder {text.model_type!r} cannot be written as ONNX: {named} in a form that is "
            "not known here"
        )
    windows = {"full_attention": None, "sliding_attention": width}
    return {kind: windows[kind] for kind in kinds}


def refuse_frozen_positions(text: Any) -> None:
    """Check that rotary positions do not depend on comparisons that an export freezes.

    Raises:
        ExportError: if they do.
    """
    frozen = sorted(set(_rope_types(getattr(text, "rope_parameters", None))) & set(_FROZEN))
    if frozen:
        raise ExportError(
            f"the decoder {text.model_type!r} cannot be written as ONNX: its rotary embedding "
            f"({frozen[0]}) changes with the length of a prompt, which a graph would freeze"
        )


def _rope_types(parameters: Any) -> Iterator[str]:
    """Types in the rotary parameters, which may be given for each kind of layer."""
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if name in ("rope_type", "type"):
            yield str(value)
        else:
            yield from _rope_types(value)
