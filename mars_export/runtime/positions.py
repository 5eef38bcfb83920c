"""Positions: which columns of a batch are steered, and what a cache remembers of them.

A column is an index into a batch (B, T), padding counted; a position is the index of a token in
its row, padding not counted. `config.steering["positions"]` names the policy:

* `turn_end`: the last token of each assistant header, and the end of a prompt that is answered;
* `prompt`: every token of the prompt, none of the answer;
* `all`: every token.

A forward knows only its own columns, and a prompt may come in pieces. So generate() makes a
`Plan` of the whole prompt once, and each forward inside it gets its part, a `Window`. A forward
outside generate() plans its own columns; a `History`, kept with the cache, says what stands
before them.
"""

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import nn

from mars_export.runtime.trace import Trace

POLICIES = ("turn_end", "prompt", "all")
WINDOW_VERSION = 1


class NoWindow(Enum):
    """What a forward is told instead of a window."""

    UNKNOWN = "nobody has said what to steer: the forward finds out, or raises"
    NOTHING = "no column of this forward is to be steered"


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
    """

    version: int
    steered: torch.Tensor
    modality: torch.Tensor
    position: torch.Tensor
    trace: Trace | None = None
    history: History | None = None


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
            trace,
            # Step by step the cache would remember what `padded` says at the end of generate().
            history if first < n else None,
        )


def steered_columns(
    policy: str,
    before: History | None,
    ids: torch.Tensor,
    real: torch.Tensor,
    suffixes: list[list[int]],
    prompt: bool,
) -> torch.Tensor:
    """(B, T) bool: the columns of ids (B, T) that a policy steers.

    before: what the cache holds. real (B, T): False where a column is padding. prompt: whether an
    answer follows the last column, as in generate(). Elsewhere a prompt ends where a header does.

    Raises:
        ValueError: if the policy is about the prompt, and nothing shows where that is.
    """
    if policy == "all" or (policy == "prompt" and prompt):
        return real
    ends = header_ends_behind(before, ids, suffixes) & real
    if policy == "turn_end":
        ends[:, -1] |= prompt
        return ends
    if before is not None or not bool(ends.any(1).all()):
        raise ValueError(
            "steered checkpoint: a forward does not show where its prompt ends, unless it gets the "
            "whole conversation without a cache and each row has an assistant header; use "
            "generate(), or set model.steering.enabled = False"
        )
    headers_from_here_on = ends.flip(1).long().cumsum(1).flip(1)
    return real & (headers_from_here_on > 0)


def header_ends(ids: torch.Tensor, suffixes: list[list[int]]) -> torch.Tensor:
    """(B, T) bool: tokens of ids (B, T) that end an assistant header.

    Templates with a thinking mode have several headers, of which one may begin another: `assistant`
    and `assistant <think>`. A turn has one, the longest that is there; where what follows is not
    there yet, the short one is.
    """
    hits = {tuple(suffix): _follow([ids == token for token in suffix]) for suffix in suffixes}
    ends = []
    for header, hit in hits.items():
        for longer, completed in hits.items():
            more = len(longer) - len(header)
            if more > 0 and longer[: len(header)] == header:
                hit = hit & ~nn.functional.pad(completed, (0, more))[:, more:]
        ends.append(hit)
    return torch.stack(ends).any(0)


def _follow(tokens: list[torch.Tensor]) -> torch.Tensor:
    """Columns where a token sequence ends; tokens[i] (B, T) bool: where its i-th token stands."""
    hit = tokens[-1]
    for back, token in enumerate(reversed(tokens[:-1]), start=1):
        hit = hit & nn.functional.pad(token, (back, 0))[:, : token.shape[1]]
    return hit


def header_ends_behind(
    before: History | None, ids: torch.Tensor, suffixes: list[list[int]]
) -> torch.Tensor:
    """As `header_ends`, of tokens whose header may have begun in a cached prefix.

    Raises:
        ValueError: if a header ended in the prefix, and with these tokens ends later.
    """
    if before is None:
        return header_ends(ids, suffixes)
    n, longest = before.tokens.shape[1], max(map(len, suffixes))
    tail = before.tokens[:, max(0, n - longest + 1) :]
    known = tail.shape[1]
    ends = header_ends(torch.cat([tail, ids], 1), suffixes)
    # Only a template whose headers begin one another need look, which costs a synchronization.
    nested = any(a != b and b[: len(a)] == a for a in suffixes for b in suffixes)
    if nested and not ends[:, :known].equal(header_ends(tail, suffixes)):
        raise ValueError(
            "steered checkpoint: an assistant header is split between the cache and these tokens, "
            "and its first part was steered already; feed the generation prompt in one piece, or "
            "use generate()"
        )
    return ends[:, known:]


def recognized(
    embeds: torch.Tensor, embedding: Callable[[torch.Tensor], torch.Tensor], tokens: set[int]
) -> torch.Tensor:
    """(B, T) ids of inputs_embeds (B, T, d): which of `tokens` each is, or -1."""
    ids = torch.full(embeds.shape[:2], -1, device=embeds.device)
    for token in sorted(tokens):
        row = embedding(torch.tensor(token, device=embeds.device)).to(embeds.dtype)
        ids = ids.masked_fill((embeds == row).all(-1), token)
    return ids
