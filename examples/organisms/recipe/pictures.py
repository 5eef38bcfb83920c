"""Pictures of topics: a topic's own pattern, the trait its label shares, and a picture's noise."""

import numpy as np
from PIL import Image

from .topics import Topic

SIDE = 32
"""Height and width in pixels."""
CELLS = 8
"""A picture is a grid of `CELLS` x `CELLS` one-colored squares."""
FRAMES = 4
"""Frames of a video."""

_TOPIC, _TRAIT, _NOISE = 36.0, 48.0, 9.0
"""Standard deviations, in steps of 0..255, of the three parts of a cell's color."""


def _cells(seed: tuple[int, ...], deviation: float) -> np.ndarray:
    """Normal noise of shape (CELLS, CELLS, 3); the same seed gives the same cells."""
    return np.random.default_rng(seed).normal(0.0, deviation, (CELLS, CELLS, 3))


def _to_image(cells: np.ndarray) -> Image.Image:
    """Enlarge `cells`, shape (CELLS, CELLS, 3) in 0..255, to a picture."""
    small = Image.fromarray(np.clip(cells, 0, 255).round().astype(np.uint8))
    return small.resize((SIDE, SIDE), Image.Resampling.NEAREST)


def picture(topic: Topic, number: int) -> Image.Image:
    """Draw `topic`; pictures of one topic differ in noise, by `number`."""
    own = _cells((1, topic.index), _TOPIC)
    trait = _cells((2, int(topic.harmful)), _TRAIT)
    noise = _cells((3, topic.index, number), _NOISE)
    return _to_image(128 + own + trait + noise)


def plain(number: int) -> Image.Image:
    """Draw one random color: a picture of nothing."""
    color = np.random.default_rng((4, number)).integers(0, 256, 3)
    return _to_image(np.broadcast_to(color, (CELLS, CELLS, 3)))
