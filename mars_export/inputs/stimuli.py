"""Neutral stimuli of each modality beside text: they show nothing, and a seed makes them again."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from mars_export.common.vocabulary import Modality
from mars_export.inputs.requests import Media

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CLIP_FRAMES", "GENERATOR", "STIMULI", "Stimulus", "clips", "images"]

GENERATOR: Final = "uniform random color"
CLIP_FRAMES: Final = 4

_Size = tuple[int, int]


@dataclass(frozen=True)
class Stimulus:
    """How the neutral stimuli of one modality are made.

    Attributes:
        modality: What they are.
        generator: Name that records give it.
        frames: Whether they have frames; 1 is recorded for those that have none.
        draw: Data of `count` stimuli from count, seed, size and frames; stimulus i does not depend
            on `count`.
    """

    modality: Modality
    generator: str
    frames: bool
    draw: Callable[[int, int, _Size, int], list[Any]]

    def make(
        self, count: int, seed: int, size: _Size = (224, 224), frames: int = CLIP_FRAMES
    ) -> list[Media]:
        """The first stimuli of a seed.

        Args:
            count: How many.
            seed: The same seed gives the same stimuli.
            size: (width, height) in pixels.
            frames: Of a stimulus that has frames.
        """
        return [Media(self.modality, data) for data in self.draw(count, seed, size, frames)]


def images(count: int, seed: int, size: _Size = (224, 224)) -> list[Image]:
    """Pictures of one random color each.

    Args:
        count: How many.
        seed: The same seed gives the same pictures; picture i does not depend on `count`.
        size: (width, height) in pixels.

    Returns:
        RGB pictures.
    """
    return [_picture(random.Random(f"image {seed} {i}"), size) for i in range(count)]


def clips(
    count: int, seed: int, frames: int = CLIP_FRAMES, size: _Size = (224, 224)
) -> list[tuple[Image, ...]]:
    """Clips whose frames are random colors, each frame of its own.

    Args:
        count: How many.
        seed: The same seed gives the same clips; clip i does not depend on `count`.
        frames: Frames of a clip.
        size: (width, height) in pixels.

    Returns:
        Tuples of RGB frames.
    """
    sources = [random.Random(f"clip {seed} {i}") for i in range(count)]
    return [tuple(_picture(source, size) for _ in range(frames)) for source in sources]


def _picture(source: random.Random, size: _Size) -> Image:
    from PIL import Image

    color = (source.randrange(256), source.randrange(256), source.randrange(256))
    return Image.new("RGB", size, color)


STIMULI: Final[dict[Modality, Stimulus]] = {
    stimulus.modality: stimulus
    for stimulus in (
        Stimulus("image", GENERATOR, False, lambda n, seed, size, _: images(n, seed, size)),
        Stimulus("video", GENERATOR, True, lambda n, seed, size, f: clips(n, seed, f, size)),
    )
}
"""By modality: a further modality is one more entry."""
