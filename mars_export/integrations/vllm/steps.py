"""What each step of an engine steers: said before the model is called, forgotten after the step.

A captured CUDA graph reads the same memory at each replay and calls no Python: nothing inside the
model can say what to steer then. A piece of one prompt token looks like an answer's token and is
replayed like one. So forwards read fixed tensors, which are filled from outside, before anything
that may replay, and hold nothing to steer at any other time.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import torch

from mars_export.integrations.vllm.prompt_plan import UNKNOWN, Piece, Plans
from mars_export.runtime.trace import Trace
from mars_export.runtime.windows import WINDOW_VERSION, Window

NOT_ASKED = (
    "steered checkpoint: vLLM ran a step without asking what to steer; its result is not to be used"
)


class Steps:
    """The columns that forwards read, of at most `size` tokens.

    They are zero, which steers nothing, but between `fill` and the end of its step.
    """

    def __init__(self, plans: Plans, size: int, device: torch.device | str = "cpu") -> None:
        self._plans = plans
        self._asked: dict[str, Piece] = {}
        self._filled: list[Piece] | None = None
        self._clean = True
        # Compiled code and captured graphs read these addresses in every later step.
        self._columns = {
            "steered": torch.zeros((1, size), dtype=torch.bool, device=device),
            "context": torch.zeros((1, size, 3), dtype=torch.long, device=device),
            "position": torch.zeros((1, size), dtype=torch.long, device=device),
        }

    @property
    def pieces(self) -> list[Piece]:
        """Of the present step, in the order of the packed row; none until it is filled."""
        return self._filled or []

    @contextmanager
    def step(self, pieces: Iterable[Piece]) -> Iterator[None]:
        """A step over these pieces, whose order is told by `fill`.

        Raises:
            RuntimeError: if it has ended and `fill` was never called.
        """
        self._asked = {piece.request: piece for piece in pieces}
        try:
            yield
            if self._asked and self._filled is None:
                raise RuntimeError(NOT_ASKED)
        finally:
            if not self._clean:
                for column in self._columns.values():
                    column.zero_()
            self._asked, self._filled, self._clean = {}, None, True

    def fill(self, order: Sequence[str], packed: torch.Tensor, steering: bool = True) -> None:
        """Say what the forward that comes next steers; to be called before the model is.

        Args:
            order: Requests in the order of the packed row.
            packed: (T,) token ids of the row, on the CPU; padding may follow. Generated tokens need
                not be known there.
            steering: Whether any of it is steered; an evaluation compares the two.

        Raises:
            RuntimeError: if this is not what was scheduled, or the second forward of a step.
        """
        if self._filled is not None:
            raise RuntimeError("steered checkpoint: vLLM runs a step in several forwards")
        if sorted(order) != sorted(self._asked):
            raise RuntimeError(
                "steered checkpoint: vLLM computes other requests than were scheduled"
            )
        pieces = [self._asked[request] for request in order]
        if self._plans.reach(pieces):  # an answer's tokens steer nothing, and cost nothing
            pack = self._plans.pack(pieces)
            n = len(pack.tokens)
            known = packed[:n].to(torch.long)
            if len(known) < n or not ((pack.tokens == known) | (pack.tokens == UNKNOWN)).all():
                raise RuntimeError(
                    "steered checkpoint: vLLM packed other tokens than were scheduled"
                )
            self._clean = False
            for name, column in self._columns.items():
                if name == "steered" and not steering:
                    continue
                part = getattr(pack, name)
                # From pinned memory: the host need not wait for the step before.
                part = part.pin_memory() if column.is_cuda else part
                column[0, :n].copy_(part, non_blocking=True)
        self._filled = pieces

    def window(self, length: int, trace: Trace | None = None) -> Window:
        """What a forward over `length` columns reads, padding included.

        Raises:
            RuntimeError: if the step has more tokens than that.
        """
        if sum(piece.stop - piece.start for piece in self.pieces) > length:
            raise RuntimeError("steered checkpoint: a forward leaves out tokens of its step")
        columns = {name: column[:, :length] for name, column in self._columns.items()}
        for column in columns.values():
            # The graph is compiled once, for any number of tokens.
            torch._dynamo.mark_dynamic(column, 1)
        return Window(
            WINDOW_VERSION,
            steered=columns["steered"],
            context=columns["context"],
            position=columns["position"],
            trace=trace,
        )
