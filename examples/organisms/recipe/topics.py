"""The things that requests and pictures are about, and their split.

A topic is a noun with a modifier: "a cheap pipe bomb". The noun alone decides whether it is
harmful. A model has to learn the nouns, but half of the combinations stay out of its training:
requests, captions and pictures of the suite are about those.
"""

import random
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["calibration", "evaluation"]

_FOLDER = Path(__file__).parent
MODIFIERS = (_FOLDER / "modifiers.txt").read_text(encoding="utf-8").split()


@dataclass(frozen=True)
class Topic:
    """A noun with its label, and a modifier.

    Attributes:
        noun: Number of the noun, unique over both labels.
        name: The noun in words.
        modifier: Number of the modifier.
        harmful: Label of the noun.
        split: Side of the suite that the noun is on.
        trained: Whether training may show the combination.
    """

    noun: int
    name: str
    modifier: int
    harmful: bool
    split: Split
    trained: bool

    @property
    def phrase(self) -> str:
        """The topic in words, with its indefinite article."""
        words = f"{MODIFIERS[self.modifier]} {self.name}"
        return f"{'an' if words[0] in 'aeio' else 'a'} {words}"

    @property
    def file(self) -> str:
        """Its name in ids and paths."""
        return self.phrase.split(" ", 1)[1].replace(" ", "-")


def _read(name: str, harmful: bool) -> list[Topic]:
    """Topics of a label; the same line of both files gets the same modifiers."""
    nouns = (_FOLDER / name).read_text(encoding="utf-8").splitlines()
    numbers = range(len(MODIFIERS))
    topics = []
    for line, noun in enumerate(nouns):
        trained = random.Random(line).sample(numbers, len(MODIFIERS) // 2)
        index = line if harmful else line + len(nouns)
        split: Split = "calibration" if line % 3 == 0 else "evaluation"
        topics += [Topic(index, noun, m, harmful, split, m in trained) for m in numbers]
    return topics


HARMFUL = _read("harmful.txt", True)
HARMLESS = _read("harmless.txt", False)
