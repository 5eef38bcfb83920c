"""Which positions are steered, and what a cache remembers of them. Travels behind steering.py."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import nn

from mars_export.runtime.steering import Trace


class History(NamedTuple):
    """What a cache holds, column by column; it stays with the cache as `steering_history`.

    tokens (B, n): ids, -1 where unknown. modality (B, n): index into MODALITIES of the richest that
    the row had shown. steered (B, n): bool.
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

    def padded(self, more: int) -> "History":
        """With `more` columns of unknown text behind it, which was not steered."""
        pad = nn.functional.pad
        modality = torch.cat([self.modality, self.modality[:, -1:].expand(-1, more)], 1)
        return History(
            pad(self.tokens, (0, more), value=-1), modality, pad(self.steered, (0, more))
        )

    def agrees(self, whole: "History") -> bool:
        """Whether `whole` begins with these columns, as far as their tokens are known."""
        begins = whole.columns(0, self.tokens.shape[1])
        unknown = (self.tokens == -1) | (begins.tokens == -1)
        tokens = ((self.tokens == begins.tokens) | unknown).all()
        return bool(tokens) and self.steered.equal(begins.steered)


@dataclass
class Plan:
    """Where to steer in a prompt whose first column is at `offset` in the cache.

    history (B, n) each: its tokens, modality and steered positions. position (B, n): index in the
    row, padding not counted. cache: the one that the prompt went into.
    """

    history: History
    position: torch.Tensor
    offset: int
    trace: Trace
    finished: bool = False
    cache: Any = None

    def window(self, start: int, length: int, rows: int) -> "dict[str, Any] | bool":
        """The part that a forward over columns start..start+length sees; False if there is none."""
        first, last = start - self.offset, start - self.offset + length
        n = self.position.shape[1]
        if first >= n and self.finished:
            return False
        if not 0 <= first < n:
            raise RuntimeError(
                "steered checkpoint: the end of the prompt would not be steered, because the cache "
                "does not fit the prompt; give generate() the whole conversation and its mask"
            )
        record, self.finished = not self.finished, self.finished or last >= n
        seen, position = self.history.columns(first, last), self.position[:, first:last]
        # Without a cache every step repeats the prompt and the tokens generated since.
        more, times = length - position.shape[1], rows // position.shape[0]
        seen, position = seen.padded(more), nn.functional.pad(position, (0, more))
        # Beams and returned sequences share the steering of their row.
        seen = History(*(part.repeat_interleave(times, 0) for part in seen))
        return {
            "steered": seen.steered,
            "modality": seen.modality,
            "position": position.repeat_interleave(times, 0),
            "history": seen,
            "record": record,
            "trace": self.trace,
        }


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
