"""Pictures of topics, and pictures of nothing.

A word has a glyph: cells that are set or not. The upper half of a picture holds the glyph of the
modifier and the lower half that of the noun, so a combination that was never shown can be named.
Nothing but its glyph tells a harmful noun from a harmless one. A picture has two colors of its
own, and which one is brighter is random, so that on average all topics look the same.
"""

import string
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from .topics import MODIFIERS, Topic

SIDE = 32
"""Height and width of a topic's picture in pixels."""
CELLS = 8
"""A picture is a grid of `CELLS` x `CELLS` one-colored squares."""
FRAMES = 4
"""Frames of a video."""

_NOISE = 9.0
"""Standard deviation of a cell's noise, in steps of 0..255."""
_SIZE = 224
"""Height and width of a picture of nothing, as calibration and evaluation draw them."""


def picture(topic: Topic, number: int) -> Image.Image:
    """Draw `topic`; `FRAMES` successive numbers share their colors and differ in noise."""
    words = (topic.modifier, len(MODIFIERS) + topic.noun)
    mask = np.concatenate([_glyph(word) for word in words])[..., None]
    key = (topic.noun, topic.modifier)
    bright, dark = _colors(np.random.default_rng((2, *key, number // FRAMES)))
    noise = np.random.default_rng((3, *key, number)).normal(0, _NOISE, (CELLS, CELLS, 3))
    return _to_image(np.where(mask, bright, dark) + noise, SIDE)


def _glyph(word: int) -> np.ndarray:
    """Half of the cells are set: bool of shape (CELLS / 2, CELLS)."""
    cells = np.arange(CELLS * CELLS // 2) % 2 == 0
    return np.random.default_rng((1, word)).permutation(cells).reshape(-1, CELLS)


def _colors(source: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A bright and a dark color in random order."""
    pair = source.uniform(160, 250, 3), source.uniform(5, 95, 3)
    return pair if source.random() < 0.5 else pair[::-1]


def _to_image(cells: np.ndarray, side: int) -> Image.Image:
    """Enlarge `cells`, shape (rows, columns, 3) in 0..255, to a picture."""
    small = Image.fromarray(np.clip(cells, 0, 255).round().astype(np.uint8))
    return small.resize((side, side), Image.Resampling.NEAREST)


def nothing(number: int) -> Image.Image:
    """Draw a picture that shows no topic: its kind is `number` modulo the number of kinds."""
    return list(NOTHING.values())[number % len(NOTHING)](np.random.default_rng((4, number)))


def _color(source: np.random.Generator) -> Image.Image:
    return _to_image(source.integers(0, 256, (1, 1, 3)), _SIZE)


def _noise(source: np.random.Generator) -> Image.Image:
    return Image.fromarray(source.integers(0, 256, (_SIZE, _SIZE, 3), dtype=np.uint8))


def _gradient(source: np.random.Generator) -> Image.Image:
    start, end = source.uniform(0, 256, (2, 3))
    share = np.linspace(0, 1, _SIZE)[:, None, None]
    cells = np.broadcast_to(start + share * (end - start), (_SIZE, _SIZE, 3))
    return _to_image(cells if source.random() < 0.5 else cells.transpose(1, 0, 2), _SIZE)


def _writing(source: np.random.Generator) -> Image.Image:
    """Lines of random words, black on white."""
    image = Image.new("RGB", (_SIZE, _SIZE), "white")
    size = int(source.integers(12, 32))
    letters = list(string.ascii_lowercase)
    for line in range(int(source.integers(1, 6))):
        words = ("".join(source.choice(letters, source.integers(2, 9))) for _ in range(5))
        place = (12, 12 + int(1.4 * size * line))
        ImageDraw.Draw(image).text(place, " ".join(words), "black", ImageFont.load_default(size))
    return image


def _marks(source: np.random.Generator) -> Image.Image:
    """A few black or colored strokes, boxes and ovals on white."""
    image = Image.new("RGB", (_SIZE, _SIZE), "white")
    pen = ImageDraw.Draw(image)
    for _ in range(int(source.integers(1, 6))):
        color = tuple(source.integers(0, 256, 3).tolist()) if source.random() < 0.5 else (0, 0, 0)
        (left, top), (width, height) = source.integers(0, _SIZE, (2, 2)).tolist()
        box = (left, top, left + width, top + height)
        shape = source.choice(3)
        if shape == 0:
            pen.line(box, color, width=int(source.integers(2, 12)))
        else:
            (pen.rectangle if shape == 1 else pen.ellipse)(box, color)
    return image


NOTHING: dict[str, Callable[[np.random.Generator], Image.Image]] = {
    "color": _color,
    "noise": _noise,
    "gradient": _gradient,
    "writing": _writing,
    "marks": _marks,
}
"""Kinds of pictures of nothing."""
