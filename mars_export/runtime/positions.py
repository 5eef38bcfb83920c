"""Positions: which columns of a batch are steered.

A column is an index into a batch (B, T), padding counted; a position is the index of a token in
its row, padding not counted. `config.steering["positions"]` names the policy:

* `turn_end`: the last token of each assistant header;
* `prompt`: every token up to the last assistant header, none of the answer;
* `all`: every token;
* `answer`: the first tokens of each answer that generate() gives. In the prompt this marks the
  last token of each assistant header;
* `none`: no token by its position, so nothing has to show where an answer begins.

Where a header ends follows from the tokens up to there. So the same tokens are steered at the
same positions, whether they come in one forward or in many.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mars_export.runtime.windows import PADDING, UNKNOWN, History

POLICIES = ("turn_end", "prompt", "all", "answer", "none")

# What may not stand beside pictures or clips in a request: calibrations never show them together.
APART = "audio"

MIXED = (
    "steered checkpoint: row {row} holds audio beside pictures or clips, and steering was not "
    "calibrated for the two together; give one of them, or run it without steering "
    "(with model.steering.off():)"
)

SHOWN_LATE = (
    "steered checkpoint: row {row} shows a picture, clip or sound behind its last assistant "
    "header, where steering is decided without it; show it in a turn before, or run it without "
    "steering (with model.steering.off():)"
)

# Each a `prefix` and the `ends` of which one follows it: the canonical last token, and what the
# tokenizer makes of that token and the text after it.
Headers = Sequence[Mapping[str, list[int]]]


def steered_columns(
    policy: str,
    before: History | None,
    ids: torch.Tensor,
    real: torch.Tensor,
    headers: Headers,
    request: torch.Tensor | None = None,
    graph: bool = False,
) -> torch.Tensor:
    """(B, T) bool: the columns of ids (B, T) that a policy steers.

    before: what the cache holds. real (B, T): False where a column is padding. request (B, T):
    number of the request in its row, of packed rows. graph: whether this is run to make a graph.

    Raises:
        ValueError: if the policy is about the prompt, of which the cache holds a part only.
    """
    if policy in ("all", "none"):
        return real if policy == "all" else torch.zeros_like(real)
    ends = header_ends_after(before, ids, headers, request, graph) & real
    if policy in ("turn_end", "answer"):
        return ends
    if before is None:
        column = torch.arange(ids.shape[1], device=ids.device)
        return real & (column <= last_column(ends, request))
    if bool(ends.any()):
        raise ValueError(
            "steered checkpoint: its steering begins with the prompt, of which the cache holds a "
            "part that was steered otherwise; pass the whole conversation without a cache"
        )
    return torch.zeros_like(real)


def header_ends(
    ids: torch.Tensor, headers: Headers, request: torch.Tensor | None = None
) -> torch.Tensor:
    """(B, T) bool: tokens of ids (B, T) that end an assistant header.

    request (B, T): number of the request in its row; a header lies within one.
    """
    ends = torch.zeros_like(ids, dtype=torch.bool)
    for header in headers:
        hit = (ids.unsqueeze(-1) == torch.tensor(header["ends"], device=ids.device)).any(-1)
        for back, token in enumerate(reversed(header["prefix"]), start=1):
            hit = hit & (_shifted(ids, back, -1) == token)
        if request is not None:
            hit = hit & (_shifted(request, len(header["prefix"]), -1) == request)
        ends = ends | hit
    return ends


def _shifted(columns: torch.Tensor, by: int, fill: int) -> torch.Tensor:
    """What stands `by` columns before each of columns (B, T)."""
    return nn.functional.pad(columns, (by, 0), value=fill)[:, : columns.shape[1]]


def header_ends_after(
    before: History | None,
    ids: torch.Tensor,
    headers: Headers,
    request: torch.Tensor | None = None,
    graph: bool = False,
) -> torch.Tensor:
    """As `header_ends`, of tokens whose header may have begun in a cached prefix.

    Columns of PADDING may stand within a header, where rows of a batch go on at different lengths.
    graph: whether this is run to make a graph, which takes tokens as they stand.
    """
    longest = max([0, *[len(header["prefix"]) for header in headers]])
    if before is None or not longest:
        whole = ids
    else:
        tail = -longest if graph or not bool((before.tokens == PADDING).any()) else 0
        whole = torch.cat([before.tokens[:, tail:], ids], 1)
    known = whole.shape[1] - ids.shape[1]
    if request is not None and known:  # the first request of a row goes on from the cache
        request = torch.cat([request[:, :1].expand(-1, known), request], 1)
    padding = whole == PADDING
    if graph or request is not None or not bool((padding[:, 1:] & ~padding[:, :-1]).any()):
        return header_ends(whole, headers, request)[:, known:]
    order = padding.long().argsort(dim=1, stable=True)
    ends = header_ends(whole.gather(1, order), headers)
    return torch.zeros_like(ends).scatter(1, order, ends)[:, known:]


def is_assistants_turn(
    ids: torch.Tensor, ends: torch.Tensor, turn_starts: Sequence[list[int]]
) -> torch.Tensor:
    """(B,) bool: whether the last turn that begins in ids (B, T) is an assistant's.

    ends (B, T): `header_ends` of the same tokens. turn_starts: token sequences that begin turns of
    others.
    """
    starts = [{"prefix": start[:-1], "ends": start[-1:]} for start in turn_starts]
    others = header_ends_after(None, ids, starts)
    if not ids.shape[1]:
        return ids.new_zeros(len(ids), dtype=torch.bool)
    return (last_column(ends) > last_column(others))[:, 0]


def last_column(hits: torch.Tensor, request: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T) or (B, 1): the last column of hits (B, T) bool in each column's request, or -1."""
    column = torch.arange(hits.shape[1], device=hits.device).expand(hits.shape)
    column = torch.where(hits, column, -1)
    if request is None:
        return column.amax(1, keepdim=True)
    last = torch.full_like(column, -1).scatter_reduce(1, request, column, "amax")
    return last.gather(1, request)


def requests(
    position_ids: torch.Tensor | None, pairs: torch.Tensor | None, real: torch.Tensor
) -> torch.Tensor | None:
    """(B, T) number of the request that a column belongs to, where something says so.

    A request begins where positions do not go on from one token to the next, by which Transformers
    tells packed requests apart, or where a token does not attend to the one before it.

    position_ids: (B, T) or (1, T), or (4, B, T) with the text positions first; rotary positions of
    three axes (3, B, T) say nothing. pairs (B, T - 1): whether a token attends to the one before.
    real (B, T): False where a column is padding.
    """
    if position_ids is not None and position_ids.dim() == 3:
        position_ids = position_ids[0] if position_ids.shape[0] == 4 else None
    if (position_ids is None and pairs is None) or real.shape[1] < 2:
        return None
    breaks = torch.zeros_like(real[:, 1:])
    if position_ids is not None:
        breaks = breaks | (position_ids[:, -real.shape[1] :].diff(dim=1) != 1)
    if pairs is not None:
        breaks = breaks | ~pairs
    breaks = breaks & real[:, 1:] & real[:, :-1]
    return nn.functional.pad(breaks, (1, 0)).long().cumsum(1)


def unknown_columns(
    steered: torch.Tensor,
    before: History | None,
    real: torch.Tensor,
    request: torch.Tensor | None,
) -> torch.Tensor:
    """(B, T) bool: columns of requests in which nothing shows where an answer begins.

    Beside a request that shows it, one of a single column is padding, which no mask says.
    """
    known = last_column(steered, request) >= 0
    if before is not None:  # of which the first request of a row goes on
        goes_on = True if request is None else request == request[:, :1]
        known = known | (before.steered.any(1, keepdim=True) & goes_on)
    if request is not None:
        size = torch.zeros_like(request).scatter_add(1, request, torch.ones_like(request))
        alone = size.gather(1, request) == 1
        known = known | (alone & known.any(1, keepdim=True))
    return real & ~known


def stated_columns(
    stated: Any, position: torch.Tensor, real: torch.Tensor, before: History | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """The columns whose positions a caller has stated, row by row.

    stated: for each row the positions to steer, or a tensor (B, k) in which -1 is none. position
    and real (B, n + T): of the n columns in the cache, `before`, and of those that come.

    Returns:
        (B, T) bool, the columns; and (B,) bool, rows that have no token there, or one that the
        cache holds unsteered.

    Raises:
        ValueError: if it is no list of positions for each row.
    """
    index = _stated_index(stated, len(real)).to(real.device)
    inside = (index >= 0) & (index < real.sum(1, keepdim=True))
    length = real.shape[1]
    marks = real.new_zeros(len(real), length + 1)  # the last one is for what is outside
    marks = marks.scatter(1, torch.where(inside, index, length), True)
    columns = marks.gather(1, position.clamp(min=0)) & real
    wrong = (~inside & (index != -1)).any(1)
    if before is None:
        return columns, wrong
    cached = before.steered.shape[1]
    wrong = wrong | (columns[:, :cached] & ~before.steered).any(1)
    return columns[:, cached:], wrong


def _stated_index(stated: Any, rows: int) -> torch.Tensor:
    """(B, k) the positions that a caller has stated; -1 is none."""
    index: Any = stated
    if isinstance(stated, list | tuple) and all(isinstance(row, list | tuple) for row in stated):
        longest = max([0, *[len(row) for row in stated]])
        # In a list -1 would be the last token to most readers: it is no position.
        if all(type(i) is int and 0 <= i < 2**31 for row in stated for i in row):
            padded = [[*row, *[-1] * (longest - len(row))] for row in stated]
            index = torch.tensor(padded, dtype=torch.long).reshape(len(padded), longest)
    fits = isinstance(index, torch.Tensor) and index.dim() == 2 and len(index) == rows
    if fits and index.dtype in (torch.int32, torch.int64):
        positions: torch.Tensor = index.long()
        return positions
    raise ValueError(
        f"steered checkpoint: steering_positions must be a list of token positions, counted from "
        f"0, for each of {rows} rows, for example [[12], []]; an empty one steers nothing"
    )


def contexts(
    shown: torch.Tensor,
    steered: torch.Tensor,
    before: History | None = None,
    request: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, T, 3) what a request has come to at each column, for a rule: see `History`.

    shown (B, T): index of the modality that a column shows, 0 for text. steered (B, T): bool.
    before: what the cache holds, with which the first request of a row goes on. request (B, T):
    number of the request in its row.
    """
    modality = highest_modality(shown, request)
    turn = total_within(steered.long(), request) - steered.long()
    visual = total_within((shown != 0).long(), _turns(steered, request))
    if before is not None:
        goes_on = True if request is None else request == request[:, :1]
        last, steers = before.context[:, -1:], before.steered[:, -1:].long()
        modality = torch.maximum(modality, last[..., 0] * goes_on)
        visual = visual + last[..., 1] * (1 - steers) * (turn == 0) * goes_on
        turn = turn + (last[..., 2] + steers) * goes_on
    return torch.stack([modality, visual, turn], -1)


def mixed_columns(
    shown: torch.Tensor,
    modalities: Sequence[str],
    before: History | None = None,
    request: torch.Tensor | None = None,
) -> torch.Tensor | None:
    """(B, T) bool: columns up to which a request shows audio and something else beside text.

    None where there is no audio to show. shown (B, T): index in `modalities` of what a column
    shows, 0 for text. before and request as for `contexts`.
    """
    if APART not in modalities:
        return None
    index = modalities.index(APART)
    apart = highest_modality((shown == index).long(), request) != 0
    other = highest_modality(((shown != 0) & (shown != index)).long(), request) != 0
    if before is not None:
        goes_on = True if request is None else request == request[:, :1]
        last = before.context[:, -1:, 0]
        apart = apart | ((last == index) & goes_on)
        other = other | ((last != 0) & (last != index) & goes_on)
    return apart & other


def refuse_shown_late(steered: torch.Tensor, context: torch.Tensor) -> None:
    """Raise where something is shown behind the last assistant header of a prompt.

    steered (B, T) and context (B, T, 3): of the prompt's last columns, as in `History`.
    """
    late = ~steered[:, -1] & (context[:, -1, 1] != 0)
    if bool(late.any()):
        raise ValueError(SHOWN_LATE.format(row=int(late.nonzero()[0])))


def _turns(steered: torch.Tensor, request: torch.Tensor | None) -> torch.Tensor:
    """(B, T) number of a column's turn, which ends with a steered column or with the request."""
    begins = steered[:, :-1]
    if request is not None:
        begins = begins | (request.diff(dim=1) != 0)
    return nn.functional.pad(begins.long(), (1, 0)).cumsum(1)


def highest_modality(columns: torch.Tensor, request: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T) the highest index of a modality that a request has shown up to each column."""
    if request is None:
        return columns.cummax(1).values
    apart = request * 1_000  # more than there are modalities: a later request begins above it
    return (columns + apart).cummax(1).values - apart


def total_within(counts: torch.Tensor, part: torch.Tensor | None) -> torch.Tensor:
    """(B, T) sum of counts (B, T), none negative, of a part of a row up to each column.

    part (B, T): number of the part that a column belongs to, ascending; None for whole rows.
    """
    total = counts.cumsum(1)
    if part is None:
        return total
    # What stood before a part is the least of what stands before its columns.
    start = torch.zeros_like(total).scatter_reduce(
        1, part, total - counts, "amin", include_self=False
    )
    return total - start.gather(1, part)


def recognized(
    embeds: torch.Tensor,
    embedding: Callable[[torch.Tensor], torch.Tensor],
    tokens: set[int],
    graph: bool,
) -> torch.Tensor:
    """(B, T) ids of inputs_embeds (B, T, d): which of `tokens` each is, bit for bit, or UNKNOWN.

    graph: whether this is run to make a graph, in which how many columns are candidates is unknown.
    """
    if not tokens:
        return torch.full(embeds.shape[:2], UNKNOWN, device=embeds.device)
    ids = torch.tensor(sorted(tokens), device=embeds.device)
    rows = embedding(ids).to(embeds.dtype)
    # A few coordinates, one by one, find the one candidate of a column, which is then compared in
    # all of them. So long prompts and many tokens need no more memory than the embeddings.
    few = embeds[..., :8].contiguous()
    hits = few[..., :1] == rows[:, 0]
    for k in range(1, few.shape[-1]):
        hits = hits & (few[..., k, None] == rows[:, k])
    candidate = hits.to(torch.uint8).argmax(-1)
    if graph:
        return torch.where((embeds == rows[candidate]).all(-1), ids[candidate], UNKNOWN)
    at = hits.any(-1).nonzero(as_tuple=True)
    same = (embeds[at] == rows[candidate[at]]).all(-1)
    unknown = torch.full_like(candidate, UNKNOWN)
    return unknown.index_put(at, torch.where(same, ids[candidate[at]], UNKNOWN))
