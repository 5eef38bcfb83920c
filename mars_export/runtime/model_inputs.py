"""Model inputs: what the arguments of a forward or a generate() say of their columns."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

# What `mm_token_type_ids` of Transformers count.
TOKEN_TYPES = ("text", "image", "video", "audio")

# Attributes of a configuration with the token in whose place a feature of a picture or clip stands.
# Other placeholders open a clip whose features stand in the place of a picture's.
VISUAL_TOKENS = ("image_token_id", "video_token_id")


def tokens_or_embeds(inputs: Mapping[str, Any]) -> Any:
    """inputs_embeds (B, T, d) or, where there are none, input_ids (B, T); None of no columns."""
    both = (inputs.get("inputs_embeds"), inputs.get("input_ids"))
    present = [x for x in both if x is not None and x.shape[1]]
    return present[0] if present else None


def cached_columns(inputs: Mapping[str, Any]) -> int:
    """Columns in the cache."""
    cache = inputs.get("past_key_values")
    return int(cache.get_seq_length()) if cache is not None else 0


def attention_mask(inputs: Mapping[str, Any], x: torch.Tensor, offset: int) -> torch.Tensor:
    """(B, offset + T) attention mask; 1 for what it leaves out, or where it is of unknown form."""
    mask, columns = inputs.get("attention_mask"), offset + x.shape[1]
    dense = dense_mask(inputs, x)
    if dense is not None:
        # Rows of padding attend to nothing or, so that none is empty, to all.
        last = torch.arange(x.shape[1], device=dense.device) == x.shape[1] - 1
        mask = dense.diagonal(dim1=1, dim2=2) & (~dense.all(-1) | last)
    elif not isinstance(mask, torch.Tensor) or mask.dim() != 2:
        return x.new_ones((x.shape[0], columns), dtype=torch.long)
    mask = mask[:, :columns].to(x.device, torch.long)  # of a static cache it may be longer
    mask = mask.expand(x.shape[0], -1)
    return nn.functional.pad(mask, (columns - mask.shape[1], 0), value=1)


def attended_pairs(inputs: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor | None:
    """(B, T - 1) bool: whether a column attends to the one before it, where a mask says so."""
    dense = dense_mask(inputs, x)
    return None if dense is None else dense.diagonal(-1, dim1=1, dim2=2)


def dense_mask(inputs: Mapping[str, Any], x: torch.Tensor) -> torch.Tensor | None:
    """(B, T, T) bool: which of T columns attends to which, of a mask (B, 1, T, n + T) of any kind.

    Of several masks, by the kind of layer, that of full attention is taken.
    """
    mask = inputs.get("attention_mask")
    if isinstance(mask, Mapping):
        mask = mask.get("full_attention", next(iter(mask.values()), None))
    if not isinstance(mask, torch.Tensor) or mask.dim() != 4:
        return None
    n = x.shape[1]
    cached = cached_columns(inputs)
    dense = mask[:, 0, -n:, cached : cached + n].to(x.device)
    dense = dense if dense.dtype == torch.bool else dense == 0
    return dense.expand(x.shape[0], -1, -1) if dense.shape[1:] == (n, n) else None


def modality_shown(
    inputs: Mapping[str, Any],
    ids: torch.Tensor,
    x: torch.Tensor,
    placeholders: Mapping[str, int],
    modalities: Sequence[str],
) -> torch.Tensor:
    """(B, T) index of the modality that each column shows; 0 is text.

    A column shows a modality by its token or by its token type.

    ids (B, T): tokens, negative where they are unknown. x: embeddings (B, T, d) or ids.
    placeholders: modality to its token. modalities: in their order.
    """
    shown = x.new_zeros(x.shape[:2], dtype=torch.long)
    types = token_types(inputs, x)
    for modality, token in placeholders.items():
        if modality in modalities:
            hits = [ids.eq(token), *(t.eq(TOKEN_TYPES.index(modality)) for t in types)]
            for hit in hits:
                index = torch.full_like(shown, modalities.index(modality))
                shown = torch.where(hit, torch.maximum(shown, index), shown)
    return shown


def token_types(inputs: Mapping[str, Any], x: torch.Tensor) -> list[torch.Tensor]:
    """What is given of the types (B, T) of the columns of x (B, T, ...)."""
    n = x.shape[1]
    given = [inputs.get(k) for k in ("mm_token_type_ids", "token_type_ids")]
    return [t[:, -n:].to(x.device) for t in given if t is not None and t.shape[1] >= n]


def refuse_untyped(
    inputs: Mapping[str, Any], x: torch.Tensor, known: Sequence[str], graph: bool
) -> None:
    """Raise unless the types of embeddings x (B, T, d) say which columns show what.

    known: modalities that have a token and were calibrated. graph: whether this is run to make a
    graph, in which types cannot be looked at.
    """
    types = token_types(inputs, x)
    if not types:
        raise ValueError(
            "steered checkpoint: inputs_embeds do not show which rows hold pictures; pass "
            "mm_token_type_ids (0 text, 1 image, 2 video, 3 audio) with them, or input_ids instead"
        )
    numbers = x.new_tensor([0, *map(TOKEN_TYPES.index, known)], dtype=torch.long)
    if not graph and any(not bool(torch.isin(t.long(), numbers).all()) for t in types):
        says = ", ".join(f"{TOKEN_TYPES.index(name)} {name}" for name in ("text", *known))
        raise ValueError(
            "steered checkpoint: the token types of inputs_embeds name what steering was not "
            f"calibrated for; it knows {says}; leave the rest out, or run it without steering "
            "(with model.steering.off():)"
        )


def visual_columns(
    inputs: Mapping[str, Any],
    ids: torch.Tensor | None,
    x: torch.Tensor,
    tokens: Sequence[int],
) -> torch.Tensor:
    """(B, T) bool: columns that hold a visual token.

    x: embeddings (B, T, d) or ids. tokens: those of `VISUAL_TOKENS`. Where there are no ids (B, T),
    the token types tell, which `refuse_untyped` asks for.
    """
    hits = x.new_zeros(x.shape[:2], dtype=torch.bool)
    if ids is not None:
        for token in tokens:
            hits = hits | ids.eq(token)
        return hits
    for name in ("mm_token_type_ids", "token_type_ids") if tokens else ():
        if (types := inputs.get(name)) is not None:
            shown = types[:, -x.shape[1] :].to(x.device)
            for modality in ("image", "video"):
                hits = hits | shown.eq(TOKEN_TYPES.index(modality))
    return hits


def refuse_uncalibrated(inputs: Mapping[str, Any], refused: Mapping[str, str]) -> None:
    """Raise where an input brings a modality that was never calibrated.

    refused: name of an input to its modality.
    """
    brought = {**inputs, **(inputs.get("mm_encoder_outputs") or {})}
    for name, modality in refused.items():
        if brought.get(name) is not None:
            raise ValueError(
                f"steered checkpoint: {name} was given, and steering was not calibrated for "
                f"{modality}; leave it out, or run it without steering "
                "(with model.steering.off():)"
            )
