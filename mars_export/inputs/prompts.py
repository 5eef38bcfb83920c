"""Prompt sets for calibration: where they come from, and their split."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.inputs.readers import Prompt, read_prompts
from mars_export.inputs.samples import read_suite_texts
from mars_export.inputs.tables import text_lines

__all__ = [
    "MINIMUM",
    "PromptSet",
    "PromptSets",
    "from_files",
    "from_suite",
    "packaged",
    "split_again",
]

MINIMUM: Final = 24
"""Fewest distinct prompts of one label that a calibration is made from."""

_DIRECTION: Final = 128
_DECISION: Final = 200
"""Most prompts of those splits; all others check."""
_UNSTATED: Final = "not stated"


@dataclass(frozen=True)
class PromptSet:
    """Prompts of one label.

    Attributes:
        name: Packaged set or file name, without its directory.
        sha256: Digest of the file's bytes.
        license: SPDX identifier, or `not stated`.
        direction: For directions, centroids and shifts.
        decision: For choices: layer, gate origin, cap and strength.
        check: For checking what was decided; the three share no prompt.
        places: Where each prompt of a user's file stands, for example `bad.txt, line 3`.
    """

    name: str
    sha256: str
    license: str
    direction: tuple[str, ...]
    decision: tuple[str, ...]
    check: tuple[str, ...]
    places: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)


@dataclass(frozen=True)
class PromptSets:
    """Harmful and harmless requests that a model is calibrated on."""

    harmful: PromptSet
    harmless: PromptSet

    @property
    def prompts(self) -> tuple[str, ...]:
        """All prompts of both labels and splits."""
        sets = (self.harmful, self.harmless)
        return tuple(p for s in sets for p in (*s.direction, *s.decision, *s.check))


@dataclass(frozen=True)
class _Source:
    name: str
    prompts: list[Prompt]
    sha256: str
    license: str


def packaged(seed: int = 0) -> PromptSets:
    """The general-purpose sets that ship with the package (Apache-2.0, written for it)."""
    folder = files("mars_export.inputs.data")
    license = json.loads((folder / "provenance.json").read_text("utf-8"))["license"]
    sources = []
    for label in ("harmful", "harmless"):
        raw = (folder / f"{label}.txt").read_bytes()
        lines = [
            Prompt(line, f"{label}.txt, line {number}")
            for number, line in text_lines(raw.decode("utf-8"))
            if line and not line.startswith("#")
        ]
        digest = hashlib.sha256(raw).hexdigest()
        sources.append(_Source(f"mars-export/{label}.txt", lines, digest, license))
    return _sets(sources[0], sources[1], seed)


def from_files(harmful: Path, harmless: Path, seed: int = 0) -> PromptSets:
    """The user's own prompts, one file per label: text, or a table as `read_rows` takes it.

    Raises:
        ExportError: A file is missing or malformed, holds too few prompts, or shares one with the
            other file.
    """
    first, second = (
        _Source(path.name, read_prompts(path), _digest(path), _UNSTATED)
        for path in (harmful, harmless)
    )
    return _sets(first, second, seed)


def from_suite(path: Path, seed: int = 0) -> PromptSets:
    """Text records of the calibration split of a `suite.jsonl`.

    Raises:
        ExportError: The file is missing or malformed, or holds too few such records.
    """
    texts = read_suite_texts(path, "calibration")
    digest = _digest(path)
    harmful, harmless = (
        _Source(f"{path.name} ({label})", texts[label == "harmful"], digest, _UNSTATED)
        for label in ("harmful", "harmless")
    )
    return _sets(harmful, harmless, seed)


def split_again(sets: PromptSets, seed: int) -> PromptSets:
    """The same prompts, split by another seed."""
    harmful, harmless = (
        _Source(
            s.name,
            [Prompt(text, s.name) for text in (*s.direction, *s.decision, *s.check)],
            s.sha256,
            s.license,
        )
        for s in (sets.harmful, sets.harmless)
    )
    return _sets(harmful, harmless, seed)


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _sets(harmful: _Source, harmless: _Source, seed: int) -> PromptSets:
    bad, good = _distinct(harmful), _distinct(harmless)
    both = sorted(set(map(_key, bad)) & set(map(_key, good)))
    if both:
        raise ExportError(
            f"{len(both)} prompts are in both {harmful.name} and {harmless.name}, for example "
            f"{both[0]!r}; a prompt is either harmful or harmless, remove it from one of them."
        )
    return PromptSets(_split(harmful, bad, seed), _split(harmless, good, seed))


def _distinct(source: _Source) -> list[str]:
    """Prompts without repeats (letter case and spacing aside), in order."""
    texts = [prompt.text for prompt in reversed(source.prompts)]
    kept = list({_key(text): text for text in texts}.values())[::-1]
    if len(kept) < MINIMUM:
        raise ExportError(
            f"{source.name} holds {len(kept)} distinct prompts; give at least {MINIMUM}, "
            f"better {_DIRECTION + 2 * _DECISION}."
        )
    return kept


def _key(prompt: str) -> str:
    return " ".join(prompt.lower().split())


def _split(source: _Source, prompts: Sequence[str], seed: int) -> PromptSet:
    """Half for the direction, up to a number, and the rest in two equal parts; seeded.

    Matched prompts stand at the same place of two files of one length: they stay in one split.
    """
    shuffled = random.Random(f"{seed}").sample(prompts, len(prompts))
    first = min(_DIRECTION, len(shuffled) // 2)
    second = first + min(_DECISION, (len(shuffled) - first) // 2)
    return PromptSet(
        source.name,
        source.sha256,
        source.license,
        tuple(shuffled[:first]),
        tuple(shuffled[first:second]),
        tuple(shuffled[second:]),
        {prompt.text: prompt.where for prompt in reversed(source.prompts)},
    )
