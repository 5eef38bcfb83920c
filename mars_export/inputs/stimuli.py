"""Neutral stimuli of each modality beside text: nothing to refuse, and a seed makes them again."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.problems import near
from mars_export.common.vocabulary import Modality
from mars_export.inputs.drawings import KINDS, MIXTURE, PHOTO, Kind, photos_installed
from mars_export.inputs.requests import Media

__all__ = [
    "CLIP_FRAMES",
    "GENERATOR",
    "NEUTRAL",
    "STIMULI",
    "Stimulus",
    "kinds_named",
    "kinds_problem",
    "require_kinds",
]

GENERATOR: Final = "seeded drawings, version 1"
"""Changes when the same seed no longer makes the same stimuli."""
CLIP_FRAMES: Final = 4
NEUTRAL: Final = "mixture"
"""Stands for every kind of `MIXTURE`."""

_Size = tuple[int, int]


@dataclass(frozen=True)
class Stimulus:
    """How the neutral stimuli of one modality are made.

    Attributes:
        modality: What they are.
        frames: Whether they have frames; 1 is recorded for those that have none.
        data: Of one stimulus, from its kind, a source of chance, size and frames.
    """

    modality: Modality
    frames: bool
    data: Callable[[Kind, Random, _Size, int], Any]

    def draw(
        self,
        index: int,
        seed: int,
        size: _Size = (224, 224),
        frames: int = CLIP_FRAMES,
        kinds: Sequence[str] = MIXTURE,
    ) -> Media:
        """One stimulus of a seed, of the kind `kinds[index % len(kinds)]`.

        Args:
            index: Which one.
            seed: The same seed gives the same stimuli.
            size: (width, height) in pixels.
            frames: Of a stimulus that has frames; each is drawn by itself.
            kinds: Names of `KINDS`, in turn.

        Raises:
            ExportError: A kind is unknown, or cannot be drawn here.
        """
        require_kinds(kinds)
        kind = kinds[index % len(kinds)]
        source = Random(f"{self.modality} {kind} {seed} {index}")
        return Media(self.modality, self.data(KINDS[kind], source, size, frames), kind)


STIMULI: Final[dict[Modality, Stimulus]] = {
    stimulus.modality: stimulus
    for stimulus in (
        Stimulus("image", False, lambda kind, source, size, _: kind(source, size)),
        Stimulus("video", True, lambda kind, source, size, frames: tuple(
            kind(source, size) for _ in range(frames)
        )),
    )
}  # fmt: skip
"""By modality: a further modality is one more entry."""


def kinds_named(text: str) -> tuple[str, ...]:
    """The kinds that a text names: `mixture`, or kinds with commas between them.

    Names are not checked; see `kinds_problem`.
    """
    names = [name.strip() for name in text.split(",")]
    return tuple(dict.fromkeys(kind for n in names for kind in (MIXTURE if n == NEUTRAL else (n,))))


def kinds_problem(kinds: Sequence[str]) -> str:
    """What kinds of neutral stimuli should be instead; empty if they can be drawn."""
    if PHOTO in kinds and not photos_installed():
        return f"used with scikit-learn, whose photographs {PHOTO} shows: pip install scikit-learn"
    unknown = next((kind for kind in kinds if kind not in KINDS), None)
    if kinds and unknown is None:
        return ""
    hint = near(unknown or "", [NEUTRAL, *KINDS])
    return f"{NEUTRAL}, or with commas any of {', '.join(KINDS)}{hint}"


def require_kinds(kinds: Sequence[str]) -> None:
    """Refuse kinds that cannot be drawn.

    Raises:
        ExportError: There is none, one is unknown, or needs a package that is absent.
    """
    if problem := kinds_problem(kinds):
        raise ExportError(f"Kinds of neutral stimuli: {','.join(kinds)!r} should be {problem}")
