"""Counting requests, so that a display can tell what remains."""

from mars_export.common.progress import Tick

__all__ = ["Meter"]


class Meter:
    """Requests done of those planned so far."""

    def __init__(self, progress: Tick | None = None) -> None:
        self._progress = progress
        self.done = 0
        self.total = 0

    def plan(self, requests: int) -> None:
        """Expect so many more requests."""
        self.total += requests
        self._tell()

    def advance(self, requests: int) -> None:
        """Note that so many were processed; work that nobody planned extends the total."""
        self.done += requests
        self.total = max(self.total, self.done)
        self._tell()

    def settle(self) -> None:
        """Drop what was planned and turned out not to be needed."""
        self.total = self.done
        self._tell()

    def _tell(self) -> None:
        if self._progress:
            self._progress(self.done, self.total)
