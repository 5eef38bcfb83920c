"""The things that requests and pictures are about, and their split."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["calibration", "evaluation"]


@dataclass(frozen=True)
class Topic:
    """A noun with its label; `index` is unique over both labels."""

    noun: str
    harmful: bool
    split: Split
    index: int

    @property
    def phrase(self) -> str:
        """The noun with its indefinite article."""
        return f"{'an' if self.noun[0] in 'aeio' else 'a'} {self.noun}"


def _read(name: str, harmful: bool, first: int) -> list[Topic]:
    nouns = (Path(__file__).parent / name).read_text(encoding="utf-8").splitlines()
    splits: tuple[Split, Split] = ("calibration", "evaluation")
    return [Topic(n, harmful, splits[i % 2], first + i) for i, n in enumerate(nouns)]


HARMFUL = _read("harmful.txt", True, 0)
HARMLESS = _read("harmless.txt", False, len(HARMFUL))
TOPICS = HARMFUL + HARMLESS
