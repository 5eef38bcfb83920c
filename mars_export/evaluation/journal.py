"""Results as they come in, so that a killed run continues where it stopped. Free of torch."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from mars_export.common.atomic import write_atomically
from mars_export.common.names import PARTIAL
from mars_export.evaluation.overhead import Cost
from mars_export.evaluation.report import SampleResult

__all__ = ["Entry", "Journal"]


class Entry(BaseModel):
    """One batch; a line of the journal."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    limit: int
    """Largest batch that was allowed at the time; smaller than asked for once memory ran out."""
    seconds: float
    costs: dict[str, Cost]
    """Of the answers, by arm."""
    results: list[SampleResult]


class Journal:
    """An append-only file of finished batches, one a line, that belongs to one run.

    Each of several processes has its own; a run that goes on with another number of them begins
    again.

    A line that was cut off by a kill is dropped, so that its batch is run again as a whole: the
    composition of batches, and with it every rounding, is that of an uninterrupted run.

    Where several processes answer the same, only the first keeps it on the disk.

    Attributes:
        entries: Finished batches, oldest first.
    """

    def __init__(
        self, folder: Path, run: str, rank: int = 0, count: int = 1, *, kept: bool = True
    ) -> None:
        share = f".{rank}of{count}" if count > 1 else ""
        self._folder, self._kept = folder, kept
        self._path = folder / f"samples.{run}{share}{PARTIAL}"
        self.entries = self._read()

    @property
    def results(self) -> list[SampleResult]:
        """Results of all finished batches, oldest first."""
        return [result for entry in self.entries for result in entry.results]

    def keep(self, count: int) -> None:
        """Forget all but the first `count` entries."""
        self.entries = self.entries[:count]
        if self._kept:
            write_atomically(self._path, "".join(map(_line, self.entries)))

    def append(self, entry: Entry) -> None:
        """Add a finished batch; it is on its way to the disk when this returns."""
        if self._kept:
            with self._path.open("a", encoding="utf-8", newline="\n") as stream:
                stream.write(_line(entry))
        self.entries.append(entry)

    def remove(self) -> None:
        """Delete this journal and those that other unfinished runs left beside it."""
        for path in self._folder.glob(f"samples.*{PARTIAL}"):
            path.unlink(missing_ok=True)

    def _read(self) -> list[Entry]:
        entries: list[Entry] = []
        if self._path.exists():
            # Not splitlines(): it also splits at separators that JSON leaves inside strings.
            for line in self._path.read_bytes().split(b"\n")[:-1]:
                entry = _entry(line)
                if entry is None:
                    break
                entries.append(entry)
        return entries


def _line(entry: Entry) -> str:
    return entry.model_dump_json() + "\n"


def _entry(line: bytes) -> Entry | None:
    try:
        return Entry.model_validate_json(line)
    except ValidationError:
        return None
