"""The attention masks of the decoder graph, by the kind of layer."""

import torch

__all__ = ["attention_masks"]


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
