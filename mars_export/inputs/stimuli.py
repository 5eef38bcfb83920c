"""Neutral pictures and clips: random uniform colors that show nothing."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["CLIP_FRAMES", "GENERATOR", "clips", "images"]

GENERATOR: Final = "uniform random color"
CLIP_FRAMES: Final = 4


def images(count: int, seed: int, size: tuple[int, int] = (224, 224)) -> list[Image]:
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
    count: int, seed: int, frames: int = CLIP_FRAMES, size: tuple[int, int] = (224, 224)
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


def _picture(source: random.Random, size: tuple[int, int]) -> Image:
    from PIL import Image

    color = (source.randrange(256), source.randrange(256), source.randrange(256))
    return Image.new("RGB", size, color)
