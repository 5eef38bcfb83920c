"""Windows: what a forward steers, and what a cache remembers.

A forward sees its own columns, and a `History`, kept with the cache, says what stands before
them. generate() makes a `Plan` of the whole prompt once, and each forward inside it gets its
part, a `Window`.
"""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum
from typing import Any, NamedTuple

import torch
from torch import nn

from mars_export.runtime.trace import Trace

WINDOW_VERSION = 4

# Instead of a token: a column whose token nobody has told, and one that is padding.
UNKNOWN = -1
PADDING = -2


class NoWindow(Enum):
    """What a forward is told instead of a window."""

    UNKNOWN = "nobody has said what to steer: the forward finds out, or raises"
    NOTHING = "no column of this forward is to be steered"
    OFF = "steering is off for the request that this forward belongs to"


class History(NamedTuple):
    """What a cache holds, column by column; it stays with the cache as `steering_history`.

    tokens (B, n): ids, UNKNOWN or PADDING. context (B, n, 3): of the request up to a column, the
    highest index of a modality that it has shown, in the checkpoint's order; how many visual tokens
    its present turn has shown, where a turn ends with a steered column; and how many columns before
    were steered: 0 where the first answer begins, 1 where the second does. steered (B, n): bool.
    sha256: digest of the steering that filled the cache.
    keys: those of one layer, as they were when this was written.
    """

    tokens: torch.Tensor
    context: torch.Tensor
    steered: torch.Tensor
    sha256: str
    keys: "Keys | None" = None

    def of(self, cache: Any) -> "History":
        """As the history of a cache as it is now."""
        return self._replace(keys=Keys.of(cache))

    def describes(self, cache: Any) -> bool:
        """Whether nobody has refilled the cache since, or moved its rows; it may be shorter."""
        return self.keys is None or self.keys.begin(cache)

    def columns(self, start: int, stop: int, device: Any = None) -> "History":
        """The part from column `start` to `stop`."""
        return self._each(lambda t: t[:, start:stop].to(device or t.device))

    def joined(self, later: "History") -> "History":
        """This one with a later one after it."""
        first = self._each(lambda t: t.to(later.tokens.device))
        tokens, context, steered = (
            torch.cat(pair, 1) for pair in zip(first[:3], later[:3], strict=True)
        )
        return History(tokens, context, steered, self.sha256)

    def repeated(self, times: int) -> "History":
        """With each row `times` times, as beams and returned sequences have it."""
        return self if times == 1 else self._each(lambda t: t.repeat_interleave(times, 0))

    def _each(self, change: Callable[[torch.Tensor], torch.Tensor]) -> "History":
        return self._replace(
            tokens=change(self.tokens),
            context=change(self.context),
            steered=change(self.steered),
        )

    def with_unknown_text(self, more: int, steered: bool) -> "History":
        """With `more` columns of unknown text after it, all of them steered or none."""
        if not more:
            return self
        tokens = nn.functional.pad(self.tokens, (0, more), value=UNKNOWN)
        after = self.context[:, -1:].repeat(1, more, 1)
        after[..., 1] *= ~self.steered[:, -1:]
        after[..., 2] += self.steered[:, -1:]
        if steered:
            after[:, 1:, 1] = 0
            after[..., 2] += torch.arange(more, device=after.device)
        context = torch.cat([self.context, after], 1)
        flags = nn.functional.pad(self.steered, (0, more), value=steered)
        return History(tokens, context, flags, self.sha256)

    def agrees(self, whole: "History") -> bool:
        """Whether `whole` begins with these columns, as far as their tokens are known."""
        begins = whole.columns(0, self.tokens.shape[1])
        unknown = (self.tokens == UNKNOWN) | (begins.tokens == UNKNOWN)
        tokens = ((self.tokens == begins.tokens) | unknown).all()
        return bool(tokens) and self.steered.equal(begins.steered)


class Keys:
    """The keys of a cache's last full layer, to see whether somebody else has written to it.

    Whoever appends or moves rows puts another tensor into the layer, or writes into the same one;
    cropping leaves a view of it.
    """

    def __init__(self, keys: torch.Tensor) -> None:
        self._keys = keys
        self._writes = None if keys.is_inference() else keys._version

    @classmethod
    def of(cls, cache: Any) -> "Keys | None":
        """Those of a cache; None of a kind that moves its keys about by itself."""
        keys = _last_keys(cache)
        return None if keys is None else cls(keys)

    def begin(self, cache: Any) -> bool:
        """Whether the cache begins with these keys."""
        keys = _last_keys(cache)
        if keys is None or keys.data_ptr() != self._keys.data_ptr():
            return False
        return self._writes is None or keys.is_inference() or keys._version == self._writes

    def __deepcopy__(self, memo: dict[int, Any]) -> "Keys":
        """With the cache that is copied: its copy of the tensor has seen no writes."""
        return Keys(copy.deepcopy(self._keys, memo))


def _last_keys(cache: Any) -> torch.Tensor | None:
    layers = getattr(cache, "layers", None) or []
    keys = [getattr(layer, "keys", None) for layer in layers if type(layer).__name__ in _PLAIN]
    tensors = [k for k in keys if isinstance(k, torch.Tensor) and k.numel()]
    return tensors[-1] if tensors and not getattr(cache, "offloading", False) else None


# Kinds of layer that keep all their keys in one tensor, of which cropping leaves a view.
_PLAIN = ("DynamicLayer", "StaticLayer")


class Window(NamedTuple):
    """What a forward over T columns of B rows steers. Serving engines make their own.

    version: WINDOW_VERSION of the code that made it. steered (B, T) bool. context (B, T, 3) long,
    as in `History`. position (B, T) long. trace: where the decisions are recorded, if anywhere.
    history: what the cache is to remember of these columns, if anything. unknown: (B, T) bool,
    columns that must not be used because nothing shows what to steer in their request; in graphs
    only, which cannot raise. visual: (B, T) bool, columns of visual tokens, if a rule is for those.
    """

    version: int
    steered: torch.Tensor
    context: torch.Tensor
    position: torch.Tensor
    trace: Trace | None = None
    history: History | None = None
    unknown: torch.Tensor | None = None
    visual: torch.Tensor | None = None

    def with_columns_before(self, more: int) -> "Window":
        """With `more` columns before it, put in after it was made; none of them is steered."""
        steered, position = (nn.functional.pad(t, (more, 0)) for t in (self.steered, self.position))
        context = nn.functional.pad(self.context, (0, 0, more, 0))
        history = self.history
        if history is not None:
            tokens = nn.functional.pad(history.tokens, (more, 0), value=UNKNOWN)
            history = History(tokens, context, steered, history.sha256)
        visual = self.visual
        if visual is not None:
            visual = nn.functional.pad(visual, (more, 0))
        return self._replace(
            steered=steered, context=context, position=position, history=history, visual=visual
        )

    def last(self, columns: int) -> "Window":
        """The part for the last so many columns."""
        if self.steered.shape[1] < columns:
            raise RuntimeError(
                "steered checkpoint: a layer runs columns that nobody has said anything of; its "
                "steering would be misplaced"
            )
        steered, context, position = (
            part[:, -columns:] for part in (self.steered, self.context, self.position)
        )
        unknown, visual = (
            None if part is None else part[:, -columns:] for part in (self.unknown, self.visual)
        )
        return self._replace(
            steered=steered, context=context, position=position, unknown=unknown, visual=visual
        )


@dataclass
class Plan:
    """What is steered in a prompt whose first column has index `offset` in the cache.

    history (B, n), position (B, n): of the prompt's columns. answer: whether the tokens that are
    generated after it are steered too. finished: whether a forward has run its last column. cache:
    the one that it went into. mixing: what changes the answer's first tokens, if anything does.
    visual (B, n): as in `Window`.
    """

    history: History
    position: torch.Tensor
    offset: int
    trace: Trace
    answer: bool
    finished: bool = False
    cache: Any = None
    mixing: Any = None
    visual: torch.Tensor | None = None

    def window(self, start: int, length: int, rows: int) -> Window | NoWindow:
        """The part that a forward over `length` columns from index `start` of the cache gets."""
        first, last = start - self.offset, start - self.offset + length
        n = self.position.shape[1]
        if first >= n and self.finished and not self.answer:
            return NoWindow.NOTHING
        if first < 0 or (first >= n and not self.finished):
            raise RuntimeError(
                "steered checkpoint: a part of the prompt would not be steered, because the cache "
                "does not fit the prompt; give generate() the whole conversation and its mask"
            )
        # Without a cache every step repeats the prompt, whose trace is complete by then.
        trace = None if self.finished else self.trace
        self.finished = self.finished or last >= n
        # Columns after the prompt are generated, or drafted by an assistant.
        more = max(0, last - n)
        after = self.position[:, -1:] + torch.arange(1, more + 1, device=self.position.device)
        position = torch.cat([self.position, after], 1)[:, first:last]
        # Beams and returned sequences share the steering of their row.
        times = rows // position.shape[0]
        history = self.history.with_unknown_text(more, steered=self.answer)
        history = history.columns(first, last).repeated(times)
        visual = self.visual
        if visual is not None:
            visual = nn.functional.pad(visual, (0, more))[:, first:last].repeat_interleave(times, 0)
        return Window(
            WINDOW_VERSION,
            history.steered,
            history.context,
            position.repeat_interleave(times, 0),
            trace=trace,
            # Step by step the cache would remember what is said at the end of generate().
            history=history if first < n else None,
            visual=visual,
        )
