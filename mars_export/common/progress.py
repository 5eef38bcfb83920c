"""Progress of a long run: a bar on a terminal, a few plain lines otherwise."""

import resource
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Final, Literal, Protocol, TextIO

__all__ = ["PlainProgress", "Progress", "RichProgress", "Silence", "Tick", "progress_for"]

Tick = Callable[[int, int], None]
"""Called with how much is done and how much there is; in any unit, and as often as one likes."""

_SECONDS_BETWEEN_LINES: Final = 5.0


class Progress(Protocol):
    """What a pipeline tells its user."""

    def stage(self, name: str) -> AbstractContextManager[Tick]:
        """Announce a stage; leaving the context ends it."""

    def note(self, text: str) -> None:
        """Say one line."""


def progress_for(display: Literal["auto", "rich", "plain", "none"]) -> Progress:
    """The display that a user asked for; `auto` looks at standard error."""
    if display == "auto":
        display = "rich" if sys.stderr.isatty() else "plain"
    kinds: dict[str, Callable[[], Progress]] = {
        "rich": RichProgress,
        "plain": PlainProgress,
        "none": Silence,
    }
    return kinds[display]()


class Silence:
    """Says nothing."""

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:  # noqa: ARG002 - the protocol's name
        """Run the stage without a word."""
        yield lambda _done, _total: None

    def note(self, text: str) -> None:
        """Ignore the line."""


class PlainProgress:
    """One line when a stage starts and ends, and one every few seconds between."""

    def __init__(
        self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._stream = stream
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Print start, occasional progress with elapsed and remaining time, and end."""
        start = shown = self._clock()
        kept: int | None = None
        self.note(f"{name} ...")

        def tick(done: int, total: int) -> None:
            nonlocal shown, kept
            now = self._clock()
            # What an earlier run left done took no time now.
            kept = done if kept is None else min(kept, done)
            if now - shown >= _SECONDS_BETWEEN_LINES and kept < done < total:
                shown = now
                remaining = (now - start) * (total - done) / (done - kept)
                self.note(
                    f"{name} {done}/{total}, {_duration(now - start)} elapsed, "
                    f"{_duration(remaining)} remaining"
                )

        yield tick
        self.note(f"{name} done in {_duration(self._clock() - start)}, {_peak_memory()}")

    def note(self, text: str) -> None:
        """Print the line at once."""
        print(text, file=self._stream or sys.stderr, flush=True)


class RichProgress:
    """A live bar with elapsed and remaining time, on standard error."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False)

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Show the bar while the stage runs, and one line with its time afterwards."""
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}"),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("remaining"),
            bars.TimeRemainingColumn(),
        )
        start = time.monotonic()
        with bars.Progress(*columns, console=self._console, transient=True) as live:
            task = live.add_task(name, total=None)
            yield lambda done, total: live.update(task, completed=done, total=total)
        self.note(f"{name} done in {_duration(time.monotonic() - start)}, {_peak_memory()}")

    def note(self, text: str) -> None:
        """Print the line above the bar."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _peak_memory() -> str:
    """Peak resident memory of this process so far; kB on Linux, bytes on macOS."""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f"peak memory {peak / 1e9:.1f} GB"
