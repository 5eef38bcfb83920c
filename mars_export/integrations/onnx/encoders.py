"""Vision encoders and the token embedding as modules that can be exported."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mars_export.common.vocabulary import Modality
from mars_export.integrations.onnx.routes import Route

__all__ = ["Embedding", "GridVision", "PixelVision", "TileVision", "vision_of"]


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


def vision_of(model: Any, route: Route) -> nn.Module | None:
    """The vision encoder of a family; None of a text model."""
    if route.vision is None:
        return None
    modules = {"grid": GridVision, "pixels": PixelVision, "single": PixelVision, "tile": TileVision}
    return modules[route.vision](model)


class PixelVision(nn.Module):
    """Pictures of one size, any number of them, to one row per placeholder."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode pixel_values, as the processor gives them, to `features` (F, d)."""
        found = self.model.get_image_features(pixel_values, return_dict=True).pooler_output
        rows = torch.cat(list(found)) if isinstance(found, list | tuple) else found
        return {"features": rows.flatten(0, -2)}


class TileVision(nn.Module):
    """One tile of a picture, for encoders that are given tiles of one size.

    The native method first leaves out tiles that only pad a batch, whose number no graph can know.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.encoder, self.connector = model.model.vision_model, model.model.connector

    def forward(self, pixel_values: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode pixel_values (1, channels, height, width) to `features` (F, d)."""
        states = self.encoder(pixel_values=pixel_values, return_dict=True).last_hidden_state
        return {"features": self.connector(states).flatten(0, -2)}


class GridVision(nn.Module):
    """One picture or clip of any size, for encoders that take packed patches and a grid.

    The patches come as a tensor whose axes are the grid, so that indices and position embeddings
    follow from shapes alone. Every frame of a clip is a picture of its own to these encoders.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.visual = model.model.visual

    def forward(self, patches: torch.Tensor) -> dict[str, torch.Tensor]:
        """Encode one picture or clip.

        Args:
            patches: (frames, rows, columns, merge * merge, channels): the processor's
                pixel_values, of which merge * merge patches make one feature.

        Returns:
            `features` (F, d) and, if the family has DeepStack, `deepstack` (levels, F, d).
        """
        frames, rows, columns = patches.shape[:3]
        merge = self.visual.config.spatial_merge_size
        row, column = _places(rows, columns, merge)
        grid = torch.stack(
            [torch.full((), size) for size in (frames, rows * merge, columns * merge)]
        )
        given = {
            "position_ids": torch.stack([row, column], -1).repeat(frames, 1),
            "cu_seqlens": torch.arange(frames + 1) * (rows * columns * merge * merge),
        }
        side = getattr(self.visual, "num_grid_per_side", None)
        if side is not None:
            indices, weights = _interpolation(row, column, rows * merge, columns * merge, side)
            given["interp_indices"] = indices.repeat(frames, 1)
            given["interp_weights"] = weights.repeat(frames, 1)
        out = self.visual(patches.flatten(0, 3), grid[None], **given, return_dict=True)
        made = {"features": out.pooler_output}
        levels = getattr(out, "deepstack_features", None)
        return {**made, "deepstack": torch.stack(list(levels))} if levels else made


def _places(rows: int, columns: int, merge: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Row and column (N,) of the patches of a frame, those of one feature side by side."""
    within = torch.arange(merge)
    row = torch.arange(rows)[:, None, None, None] * merge + within[None, None, :, None]
    column = torch.arange(columns)[None, :, None, None] * merge + within[None, None, None, :]
    shape = (rows, columns, merge, merge)
    return row.expand(shape).flatten(), column.expand(shape).flatten()


def _interpolation(
    row: torch.Tensor, column: torch.Tensor, height: int, width: int, side: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Indices into a side x side table of position embeddings, and their weights, (N, 4) each.

    Bilinear, corners aligned: `transformers.vision_utils` with the grid as shapes.
    """
    (top, down), (left, right) = _taps(row, height, side), _taps(column, width, side)
    pairs = [(v, h) for v in (top, down) for h in (left, right)]
    indices = torch.stack([v[0] * side + h[0] for v, h in pairs], -1)
    return indices, torch.stack([v[1] * h[1] for v, h in pairs], -1)


def _taps(index: torch.Tensor, size: int, side: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The two neighbors of a place on an axis, and their weights."""
    place = index.float() * (side - 1) / (torch.full((), size).float() - 1).clamp(min=1)
    low = place.floor()
    share = place - low
    low = low.long()
    return [(low, 1 - share), ((low + 1).clamp(max=side - 1), share)]
