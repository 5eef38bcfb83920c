"""Counting requests, so that a display can tell what remains."""

from collections.abc import Sequence

from mars_export.common.progress import Tick
from mars_export.inputs.requests import Request, extent

__all__ = ["Meter"]


class Meter:
    """Requests done of those planned so far; one that is twice as large counts twice.

    Attributes:
        usual: Size of a request that counts once, as `extent` has it; None to count each once.
    """

    def __init__(self, progress: Tick | None = None, usual: float | None = None) -> None:
        self._progress = progress
        self.usual = usual
        self.done = 0.0
        self.total = 0.0

    def plan(self, requests: int) -> None:
        """Expect so many more requests."""
        self.total += requests
        self._tell()

    def advance(self, requests: Sequence[Request]) -> None:
        """Note that these were processed; work that nobody planned extends the total."""
        if self.usual is None:
            self.done += len(requests)
        else:
            self.done += sum(extent(request.characters) for request in requests) / self.usual
        self.total = max(self.total, self.done)
        self._tell()

    def settle(self) -> None:
        """Drop what was planned and turned out not to be needed."""
        self.total = self.done
        self._tell()

    def _tell(self) -> None:
        if self._progress:
            self._progress(round(self.done), round(self.total))
