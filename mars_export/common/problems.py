"""What is wrong with a file, all of it told at once; and what a wrong word may stand for."""

import difflib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, TypeVar

from mars_export.common.errors import ExportError

__all__ = ["Problems", "near", "near_file"]

_TOLD: Final = 10
"""Problems that are told one by one; of the others the number."""
_FILES: Final = 2000
"""Names of a folder that are looked at for one that is near."""
_LONGEST: Final = 200
"""Characters of a word that are compared."""

_T = TypeVar("_T")


class Problems:
    """Problems of one file, by place, for example `line 3`.

    Attributes:
        file: For the message; empty where the places name files themselves.
    """

    def __init__(self, file: str = "") -> None:
        self.file = file
        self._all: list[tuple[str, str, str]] = []

    def add(self, place: str, what: str, advice: str = "") -> None:
        """Note a problem; the advice is told if it is the only one."""
        self._all.append((place, what, advice))

    def attempt(self, place: str, make: Callable[[], _T]) -> list[_T]:
        """What `make` gives, alone in a list; nothing, and a problem noted, if it refuses."""
        try:
            return [make()]
        except ExportError as error:
            where = f"{self.file}, {place}: " if self.file else f"{place}: "
            self.add(place, str(error).removeprefix(where))
            return []

    def refuse(self) -> None:
        """Tell the problems, if there are any.

        Raises:
            ExportError: There are; the first ten, and how many more.
        """
        if not self._all:
            return
        if len(self._all) == 1:
            ((place, what, advice),) = self._all
            where = f"{self.file}, {place}" if self.file else place
            raise ExportError(f"{where}: {what}" + (f"; {advice}" if advice else ""))
        places = {place.rpartition(", ")[0] for place, _, _ in self._all}
        file = self.file or (places.pop() if len(places) == 1 else "")
        begin = f"{file} has {len(self._all)} problems" if file else f"{len(self._all)} problems"
        first = sorted(self._all, key=lambda problem: _order(problem[0]))[:_TOLD]
        told = "; ".join(f"{place.removeprefix(f'{file}, ')}: {what}" for place, what, _ in first)
        more = len(self._all) - len(first)
        raise ExportError(f"{begin}: {told}" + (f"; and {more} more" if more else ""))


def _order(place: str) -> tuple[str, int]:
    """Lines by number."""
    name, _, number = place.rpartition(" ")
    return (name, int(number)) if number.isdecimal() else (place, 0)


def near(word: str, known: Iterable[str], least: float = 0.6) -> str:
    """`; is it WORD?` with the known word that is nearest; empty if none is near.

    Args:
        word: What was written.
        known: What may be meant.
        least: How near it must be, from 0 to 1.
    """
    words = difflib.get_close_matches(word[:_LONGEST], sorted(known), 1, least)
    return f"; is it {words[0]}?" if words else ""


def near_file(path: Path) -> str:
    """The same for a file or folder that does not exist, among those beside it."""
    try:
        names = [entry.name for entry, _ in zip(path.parent.iterdir(), range(_FILES), strict=False)]
    except (OSError, ValueError):
        return ""
    return near(path.name, sorted({*names} - {path.name}))  # a link to nothing is there, and not
