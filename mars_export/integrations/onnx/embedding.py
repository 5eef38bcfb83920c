"""The token embedding as a module that can be exported: pictures are put in here."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mars_export.common.vocabulary import Modality

__all__ = ["Embedding"]


class Embedding(nn.Module):
    """Token ids and picture features to the decoder's embeddings.

    Features take the places of their modality's placeholders in order of appearance, row by row.
    Where there are more or fewer than placeholders, everything is NaN: a graph cannot raise. With
    none at all, a placeholder is a token like others, as in PyTorch: a model may write one itself.
    """

    def __init__(self, model: Any, tokens: Mapping[Modality, int], levels: int) -> None:
        super().__init__()
        self.embed, self.tokens, self.levels = model.get_input_embeddings(), tokens, levels

    def forward(
        self,
        input_ids: torch.Tensor,
        features: dict[Modality, torch.Tensor] | None = None,
        deepstack: dict[Modality, torch.Tensor] | None = None,
    ) -> dict[str, torch.Tensor]:
        """Embed the new columns.

        Args:
            input_ids: (B, n) tokens.
            features: Modality to (F, d); F is 0 where there are none.
            deepstack: Modality to (levels, F, d).

        Returns:
            `inputs_embeds` (B, n, d) and, with `deepstack`, `deepstack` (levels, B, n, d).
        """
        shown = {m: input_ids == token for m, token in self.tokens.items()}
        plain = input_ids
        for modality, token in self.tokens.items():
            if token >= self.embed.weight.shape[0]:
                plain = plain.masked_fill(shown[modality], 0)
        embeds = self.embed(plain)
        added = embeds.new_zeros((self.levels, *embeds.shape))
        for modality, here in shown.items():
            rows, index = (features or {})[modality], _order(here)
            length = _length(rows)
            fits = (length == here.long().sum()) | (length == 0)
            taken = here[..., None] & (length > 0)
            embeds = torch.where(taken, _taken(rows, index), embeds)
            embeds = torch.where(fits, embeds, torch.nan)
            if deepstack is not None:
                levels = torch.stack([_taken(level, index) for level in deepstack[modality]])
                added = torch.where(here[None, ..., None], levels, added)
        if deepstack is None:
            return {"inputs_embeds": embeds}
        return {"inputs_embeds": embeds, "deepstack": added}


def _order(here: torch.Tensor) -> torch.Tensor:
    """(B, n) how many placeholders stand before one, in the whole batch."""
    return (here.flatten().long().cumsum(0) - 1).clamp(min=0).view(here.shape)


def _length(rows: torch.Tensor) -> torch.Tensor:
    """() number of rows (F, d), counted from the data."""
    return torch.ones_like(rows[:, 0]).long().sum()


def _taken(rows: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
    """(B, n, d) rows (F, d) by index, zeros beyond them."""
    rows = torch.cat([rows, rows.new_zeros((1, rows.shape[1]))])
    return rows[index.clamp(max=rows.shape[0] - 1)]
