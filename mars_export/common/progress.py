"""Progress of a long run, drawn by rich: a bar on a terminal, a few plain lines otherwise."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, Literal

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Task

__all__ = ["Progress", "Tick", "progress_for"]

Tick = Callable[[int, int], None]
"""Called with how much is done and how much there is; in any unit, and as often as one likes."""

_SECONDS_BETWEEN_LINES: Final = 5.0


def progress_for(display: Literal["auto", "rich", "plain", "none"]) -> Progress:
    """The display that a user asked for; `auto` looks at standard error."""
    from rich.console import Console

    live = display == "rich" or (display == "auto" and sys.stderr.isatty())
    quiet = display == "none"
    return Progress(Console(stderr=True, force_terminal=live, force_jupyter=False, quiet=quiet))


class Progress:
    """Stages and lines on a console; a console that is no terminal gets a line now and then."""

    def __init__(self, console: Console, clock: Callable[[], float] = time.monotonic) -> None:
        self._console = console
        self._clock = clock

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Show the progress of a stage; leaving the context without an error ends it."""
        from rich import progress as bars

        columns = (
            bars.TextColumn("{task.description}", markup=False),
            bars.BarColumn(),
            bars.MofNCompleteColumn(),
            bars.TimeElapsedColumn(),
            bars.TextColumn("remaining"),
            bars.TimeRemainingColumn(),
        )
        live = self._console.is_terminal
        display = bars.Progress(
            *columns,
            console=self._console,
            transient=True,
            get_time=self._clock,
            speed_estimate_period=math.inf,  # of the whole stage
            disable=not live,
        )
        if not live:
            self.note(f"{name} ...")
        with display:
            display.add_task(name, total=None)
            (task,) = display.tasks
            printed = start = self._clock()

            def tick(done: int, total: int) -> None:
                nonlocal printed
                display.update(task.id, completed=done, total=total)
                if not live and self._clock() - printed >= _SECONDS_BETWEEN_LINES:
                    printed = self._clock()
                    self.note(_line(task))

            yield tick
        self.note(f"{name} done in {_duration(self._clock() - start)}{_peak_memory()}")

    def note(self, text: str) -> None:
        """Print one line, above the bar if there is one."""
        self._console.print(text, markup=False, highlight=False, emoji=False, soft_wrap=True)


def _line(task: Task) -> str:
    line = f"{task.description} {task.completed:.0f}/{task.total:.0f}"
    line += f", {_duration(task.elapsed or 0)} elapsed"
    # What an earlier run left done is the first step, which rich leaves out of the speed.
    remaining = task.time_remaining
    return line if remaining is None else f"{line}, {_duration(remaining)} remaining"


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes:02d} min"
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


def _peak_memory() -> str:
    """Peak resident memory of this process so far; kB on Linux, bytes on macOS, not on Windows."""
    try:
        import resource
    except ImportError:
        return ""
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return f", peak memory {peak / 1e9:.1f} GB"
