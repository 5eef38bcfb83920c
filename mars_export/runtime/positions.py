"""Positions: which columns of a batch are steered, and what a cache remembers of them.

A column is an index into a batch (B, T), padding counted; a position is the index of a token in
its row, padding not counted. `config.steering["positions"]` names the policy:

* `turn_end`: the last token of each assistant header;
* `prompt`: every token up to the last assistant header, none of the answer;
* `all`: every token.

Where a header ends follows from the tokens up to there. So the same tokens are steered at the
same positions, whether they come in one forward or in many. A forward sees its own columns, and a
`History`, kept with the cache, says what stands before them. generate() makes a `Plan` of the
whole prompt once, and each forward inside it gets its part, a `Window`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import nn

from mars_export.runtime.trace import Trace

POLICIES = ("turn_end", "prompt", "all")
WINDOW_VERSION = 2

# Each a `prefix` and the `ends` of which one follows it: the canonical last token, and what the
# tokenizer makes of that token and the text behind it.
Headers = Sequence[Mapping[str, list[int]]]


class NoWindow(Enum):
    """What a forward is told instead of a window."""

    UNKNOWN = "nobody has said what to steer: the forward finds out, or raises"
    NOTHING = "no column of this forward is to be steered"
    OFF = "steering is off for the request that this forward belongs to"


class History(NamedTuple):
    """What a cache holds, column by column; it stays with the cache as `steering_history`.

    tokens (B, n): ids, -1 where unknown. modality (B, n): index into the checkpoint's modalities,
    the highest that the row had shown up to there. steered (B, n): bool.
    """

    tokens: torch.Tensor
    modality: torch.Tensor
    steered: torch.Tensor

    def columns(self, start: int, stop: int, device: Any = None) -> "History":
        """The part from column `start` to `stop`."""
        return History(*(t[:, start:stop].to(device or t.device) for t in self))

    def joined(self, later: "History") -> "History":
        """This one with a later one behind it."""
        pairs = zip(self, later, strict=True)
        return History(*(torch.cat([a.to(b.device), b], 1) for a, b in pairs))

    def padded(self, more: int, steered: bool) -> "History":
        """With `more` columns of unknown text behind it, all of them steered or none."""
        tokens = nn.functional.pad(self.tokens, (0, more), value=-1)
        modality = torch.cat([self.modality, self.modality[:, -1:].expand(-1, more)], 1)
        return History(tokens, modality, nn.functional.pad(self.steered, (0, more), value=steered))

    def agrees(self, whole: "History") -> bool:
        """Whether `whole` begins with these columns, as far as their tokens are known."""
        begins = whole.columns(0, self.tokens.shape[1])
        unknown = (self.tokens == -1) | (begins.tokens == -1)
        tokens = ((self.tokens == begins.tokens) | unknown).all()
        return bool(tokens) and self.steered.equal(begins.steered)


class Window(NamedTuple):
    """What a forward over T columns of B rows steers. Serving engines make their own.

    version: WINDOW_VERSION of the code that made it. steered (B, T) bool. modality (B, T) long:
    index into the checkpoint's modalities. position (B, T) long. trace: where the decisions are
    recorded, if anywhere. history: what the cache is to remember of these columns, if anything.
    unknown: (B, T) bool, columns that must not be used because nothing shows what to steer in their
    request; in graphs only, which cannot raise.
    """

    version: int
    steered: torch.Tensor
    modality: torch.Tensor
    position: torch.Tensor
    trace: Trace | None = None
    history: History | None = None
    unknown: torch.Tensor | None = None

    def behind(self, more: int) -> "Window":
        """With `more` columns before it, put in after it was made; none of them is steered."""
        steered, modality, position = (
            nn.functional.pad(t, (more, 0)) for t in (self.steered, self.modality, self.position)
        )
        history = self.history
        if history is not None:
            tokens = nn.functional.pad(history.tokens, (more, 0), value=-1)
            history = History(tokens, modality, steered)
        return self._replace(steered=steered, modality=modality, position=position, history=history)


@dataclass
class Plan:
    """What is steered in a prompt whose first column has index `offset` in the cache.

    history (B, n), position (B, n): of the prompt's columns. answer: whether the tokens that are
    generated behind it are steered too. finished: whether a forward has run its last column. cache:
    the one that it went into.
    """

    history: History
    position: torch.Tensor
    offset: int
    trace: Trace
    answer: bool
    finished: bool = False
    cache: Any = None

    def window(self, start: int, length: int, rows: int) -> Window | NoWindow:
        """The part that a forward over `length` columns from index `start` of the cache gets."""
        first, last = start - self.offset, start - self.offset + length
        n = self.position.shape[1]
        if first >= n and self.finished and not self.answer:
            return NoWindow.NOTHING
        if first < 0 or (first >= n and not self.finished):
            raise RuntimeError(
                "steered checkpoint: the end of the prompt would not be steered, because the cache "
                "does not fit the prompt; give generate() the whole conversation and its mask"
            )
        # Without a cache every step repeats the prompt, whose trace is complete by then.
        trace = None if self.finished else self.trace
        self.finished = self.finished or last >= n
        # Columns behind the prompt are generated, or drafted by an assistant.
        more = max(0, last - n)
        behind = self.position[:, -1:] + torch.arange(1, more + 1, device=self.position.device)
        position = torch.cat([self.position, behind], 1)[:, first:last]
        history = self.history.padded(more, steered=self.answer).columns(first, last)
        # Beams and returned sequences share the steering of their row.
        times = rows // position.shape[0]
        history = History(*(part.repeat_interleave(times, 0) for part in history))
        return Window(
            WINDOW_VERSION,
            history.steered,
            history.modality,
            position.repeat_interleave(times, 0),
            trace=trace,
            # Step by step the cache would remember what `padded` says at the end of generate().
            history=history if first < n else None,
        )


def steered_columns(
    policy: str,
    before: History | None,
    ids: torch.Tensor,
    real: torch.Tensor,
    headers: Headers,
    request: torch.Tensor | None = None,
) -> torch.Tensor:
    """(B, T) bool: the columns of ids (B, T) that a policy steers.

    before: what the cache holds. real (B, T): False where a column is padding. request (B, T):
    number of the request in its row, of packed rows.

    Raises:
        ValueError: if the policy is about the prompt, of which the cache holds a part only.
    """
    if policy == "all":
        return real
    ends = header_ends_behind(before, ids, headers, request) & real
    if policy == "turn_end":
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


def header_ends_behind(
    before: History | None,
    ids: torch.Tensor,
    headers: Headers,
    request: torch.Tensor | None = None,
) -> torch.Tensor:
    """As `header_ends`, of tokens whose header may have begun in a cached prefix."""
    longest = max([0, *[len(header["prefix"]) for header in headers]])
    if before is None or not longest:
        return header_ends(ids, headers, request)
    tail = before.tokens[:, -longest:]
    known = tail.shape[1]
    if request is not None:  # the first request of a row goes on behind the cache
        request = torch.cat([request[:, :1].expand(-1, known), request], 1)
    return header_ends(torch.cat([tail, ids], 1), headers, request)[:, known:]


def last_column(hits: torch.Tensor, request: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T) or (B, 1): the last column of hits (B, T) bool in each column's request, or -1."""
    column = torch.arange(hits.shape[1], device=hits.device).expand(hits.shape)
    column = torch.where(hits, column, -1)
    if request is None:
        return column.amax(1, keepdim=True)
    last = torch.full_like(column, -1).scatter_reduce(1, request, column, "amax")
    return last.gather(1, request)


def requests(position_ids: torch.Tensor | None, real: torch.Tensor) -> torch.Tensor | None:
    """(B, T) number of the request that a column belongs to, where position_ids say so.

    Positions that do not go on from one token to the next begin another request: so rows are packed
    without a mask, and so Transformers tells packed requests apart.

    position_ids: (B, T) or (1, T), or (4, B, T) with the text positions first; rotary positions of
    three axes (3, B, T) say nothing. real (B, T): False where a column is padding.
    """
    if position_ids is not None and position_ids.dim() == 3:
        position_ids = position_ids[0] if position_ids.shape[0] == 4 else None
    if position_ids is None or real.shape[1] < 2:
        return None
    breaks = position_ids[:, -real.shape[1] :].diff(dim=1) != 1
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
    if before is not None:
        known = known | before.steered.any(1, keepdim=True)
    if request is not None:
        size = torch.zeros_like(request).scatter_add(1, request, torch.ones_like(request))
        alone = size.gather(1, request) == 1
        known = known | (alone & known.any(1, keepdim=True))
    return real & ~known


def stated_columns(
    stated: Any, position: torch.Tensor, real: torch.Tensor, before: History | None, graph: bool
) -> torch.Tensor:
    """(B, T) bool: the columns whose positions a caller has stated, row by row.

    stated: for each row the positions to steer, or a tensor (B, k) in which -1 is none. position
    and real (B, n + T): of the n columns in the cache, `before`, and of those that come. graph:
    whether this is run to make a graph, where the statement cannot be checked.

    Raises:
        ValueError: if a row is missing, or a position is not in its row, or not steered in the
            cache.
    """
    index = _stated_index(stated, len(real)).to(real.device)
    inside = (index >= 0) & (index < real.sum(1, keepdim=True))
    length = real.shape[1]
    marks = real.new_zeros(len(real), length + 1)  # the last one is for what is outside
    marks = marks.scatter(1, torch.where(inside, index, length), True)
    columns = marks.gather(1, position.clamp(min=0)) & real
    cached = 0 if before is None else before.steered.shape[1]
    if graph:
        return columns[:, cached:]
    absent = (~inside & (index != -1)).nonzero().tolist()
    if absent:
        row, k = absent[0]
        raise ValueError(
            f"steered checkpoint: steering_positions name {int(index[row, k])} in row {row}, which "
            f"has {int(real[row].sum())} tokens so far"
        )
    if before is not None and bool((columns[:, :cached] & ~before.steered).any()):
        raise ValueError(
            "steered checkpoint: steering_positions name a token that the cache holds unsteered; "
            "pass the whole conversation without a cache"
        )
    return columns[:, cached:]


def _stated_index(stated: Any, rows: int) -> torch.Tensor:
    """(B, k) the positions that a caller has stated; -1 is none."""
    if not isinstance(stated, torch.Tensor):
        lists = [list(row) if isinstance(row, list | tuple) else None for row in stated]
        if not any(row is None or not all(type(i) is int for i in row) for row in lists):
            longest = max((len(row) for row in lists if row is not None), default=0)
            padded = [[*row, *[-1] * (longest - len(row))] for row in lists if row is not None]
            stated = torch.tensor(padded, dtype=torch.long).reshape(len(padded), longest)
    integers = (torch.int32, torch.int64)
    index: torch.Tensor | None = stated if isinstance(stated, torch.Tensor) else None
    if index is not None and index.dtype in integers and index.dim() == 2 and len(index) == rows:
        return index.long()
    raise ValueError(
        f"steered checkpoint: steering_positions must be a list of token positions for each of "
        f"{rows} rows, for example [[12], []]; an empty one steers nothing"
    )


def highest_modality(columns: torch.Tensor, request: torch.Tensor | None = None) -> torch.Tensor:
    """(B, T) the highest index of a modality that a request has shown up to each column."""
    if request is None:
        return columns.cummax(1).values
    apart = request * 1_000  # more than there are modalities: a later request begins above it
    return (columns + apart).cummax(1).values - apart


def recognized(
    embeds: torch.Tensor,
    embedding: Callable[[torch.Tensor], torch.Tensor],
    tokens: set[int],
    graph: bool,
) -> torch.Tensor:
    """(B, T) ids of inputs_embeds (B, T, d): which of `tokens` each is, bit for bit, or -1.

    graph: whether this is run to make a graph, in which how many columns are candidates is unknown.
    """
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
        return torch.where((embeds == rows[candidate]).all(-1), ids[candidate], -1)
    at = hits.any(-1).nonzero(as_tuple=True)
    same = (embeds[at] == rows[candidate[at]]).all(-1)
    unknown = torch.full_like(candidate, -1)
    return unknown.index_put(at, torch.where(same, ids[candidate[at]], -1))
