"""Neutral stimuli of each modality beside text: nothing to refuse, and a seed makes them again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from random import Random
from typing import Any, Final, Literal, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.problems import near
from mars_export.common.vocabulary import Modality
from mars_export.inputs import drawings, tones
from mars_export.inputs.drawings import PHOTO, photos_installed
from mars_export.inputs.requests import Drawn, Media

__all__ = [
    "CLIP_FRAMES",
    "KINDS",
    "MIXTURE",
    "NEUTRAL",
    "SOUND_SECONDS",
    "STIMULI",
    "Stimulus",
    "alike",
    "kinds_named",
    "kinds_problem",
    "require_kinds",
]

CLIP_FRAMES: Final = 4
SOUND_SECONDS: Final = 3.0
NEUTRAL: Final = "mixture"
"""Stands for every kind of `MIXTURE`."""
MIXTURE: Final = (*drawings.MIXTURE, *tones.MIXTURE)
"""The kinds that each modality takes where none of its own is named."""

_Size = tuple[int, int]


class _Extent(NamedTuple):
    """How much of a stimulus there is: pixels (width, height), frames, seconds."""

    size: _Size
    frames: int
    seconds: float


_Maker = Callable[..., Any]
"""Of a picture from a source of chance and a size, of a sound from a source and a length."""


@dataclass(frozen=True)
class Stimulus:
    """How the neutral stimuli of one modality are made.

    Attributes:
        modality: What they are.
        generator: Changes when the same seed no longer makes the same stimuli.
        kinds: By name; other modalities may have them as well.
        extent: What there may be more or less of: of a picture its size, of a clip its frames.
        data: Of one stimulus, from its kind, a source of chance, and its extent.
    """

    modality: Modality
    generator: str
    kinds: Mapping[str, _Maker]
    extent: Literal["size", "frames", "seconds"]
    data: Callable[[_Maker, Random, _Extent], Any]

    @property
    def shown(self) -> bool:
        """Whether they have a size in pixels."""
        return self.extent != "seconds"

    def own(self, kinds: Sequence[str]) -> tuple[str, ...]:
        """Those of the kinds that it has; the kinds of `MIXTURE` that it has if there are none."""
        mixture = (kind for kind in MIXTURE if kind in self.kinds)
        return tuple(kind for kind in kinds if kind in self.kinds) or tuple(mixture)

    def draw(
        self,
        index: int,
        seed: int,
        size: _Size = (224, 224),
        frames: int = CLIP_FRAMES,
        kinds: Sequence[str] = MIXTURE,
        seconds: float = SOUND_SECONDS,
    ) -> Media:
        """One stimulus of a seed, of the kind `own(kinds)[index % len(own(kinds))]`.

        Args:
            index: Which one.
            seed: The same seed gives the same stimuli.
            size: (width, height) in pixels.
            frames: Of a stimulus that has frames; each is drawn by itself.
            kinds: Names of kinds, of any modality.
            seconds: Of a sound.

        Raises:
            ExportError: A kind is unknown, or cannot be drawn here.
        """
        return self.drawn(index, seed, size, frames, kinds, seconds).made()

    def drawn(
        self,
        index: int,
        seed: int,
        size: _Size,
        frames: int,
        kinds: Sequence[str],
        seconds: float,
    ) -> Drawn:
        """The same, drawn when it is needed."""
        require_kinds(kinds)
        own = self.own(kinds)
        kind, extent = own[index % len(own)], _Extent(size, frames, seconds)

        def make() -> Any:
            source = Random(f"{self.modality} {kind} {seed} {index}")
            return self.data(self.kinds[kind], source, extent)

        return Drawn(self.modality, make, kind)


_DRAWN: Final = "seeded drawings, version 1"

STIMULI: Final[dict[Modality, Stimulus]] = {
    stimulus.modality: stimulus
    for stimulus in (
        Stimulus("image", _DRAWN, drawings.KINDS, "size",
                 lambda kind, source, extent: kind(source, extent.size)),
        Stimulus("video", _DRAWN, drawings.KINDS, "frames",
                 lambda kind, source, extent: tuple(
                     kind(source, extent.size) for _ in range(extent.frames)
                 )),
        Stimulus("audio", "seeded sounds, version 1", tones.KINDS, "seconds",
                 lambda kind, source, extent: kind(source, extent.seconds)),
    )
}  # fmt: skip
"""By modality: a further modality is one more entry."""

KINDS: Final = tuple(dict.fromkeys(chain(*(stimulus.kinds for stimulus in STIMULI.values()))))
"""Names of the kinds of all modalities."""


def alike(kinds: Sequence[str], others: Sequence[str]) -> bool:
    """Whether two choices of kinds are the same one for every modality."""
    return all(one.own(kinds) == one.own(others) for one in STIMULI.values())


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
