"""Words written into pictures, and what each cell of a picture says.

A picture is a grid of cells. A word starts in a cell of its own, a little to the right of its left
edge, and covers as many cells as it needs. The cells' tokens are the labels of the tower: the first
cell of a word says its first token, and a further token stands where its first letter is.
"""

import random
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

SIDE = 96
"""Of a picture, in pixels."""
CELL = 16
"""Of what a visual token covers, in pixels; also the distance of two lines."""
PATCH = 8
COLUMNS = SIDE // CELL
CELLS = COLUMNS**2
BLANK = -1
"""Label of a cell that says nothing."""
LETTERS = 28
"""Classes of letters: nothing, a to z, and any other character."""
_SLOTS = (2, 6)
"""Where a patch's letters are looked up, in pixels from its left edge."""
PLAIN = 0.5
"""Share of the pages that are black on white."""
_MARGIN = 8
_BASELINE = 12
_TALL = 18
_LATEST_START = 4
_CONTRAST = 90.0
_INVERTED = 0.2
"""Share of the pages drawn with light ink on dark paper that stay."""
_LUMINANCE = np.array([0.299, 0.587, 0.114])

_FONTS = {
    "DejaVuSans": (9, 10),
    "DejaVuSans-Bold": (9, 9),
    "DejaVuSansMono": (9, 10),
    "DejaVuSerif": (9, 10),
    "": (10, 11),
}
"""Smallest and largest size of each font; the empty name is Pillow's own."""
FACES = [(name, size) for name, (low, high) in _FONTS.items() for size in range(low, high + 1)]

Tokens = Callable[[str], list[tuple[int, int]]]
"""Gives a word's tokens, each with the place of its first letter in the word."""


@dataclass(frozen=True)
class Glyphs:
    """A written word: opacity of shape (18, width), and where each letter starts, in pixels."""

    mask: NDArray[np.uint8]
    starts: tuple[int, ...]


@dataclass(frozen=True)
class Page:
    """A picture with its labels.

    Attributes:
        pixels: Shape (96, 96, 3).
        cells: Token that each cell says, or BLANK; shape (36,), row by row.
        letters: Class of the letter at two places of each patch; shape (144, 2), row by row.
        words: The words that found room, in reading order.
    """

    pixels: NDArray[np.uint8]
    cells: NDArray[np.int64]
    letters: NDArray[np.int64]
    words: tuple[str, ...]


@dataclass(frozen=True)
class Style:
    """How a page looks; `plain` is black on white in one face."""

    face: tuple[str, int] = ("DejaVuSans", 9)
    ink: tuple[int, int, int] = (0, 0, 0)
    paper: tuple[int, int, int] = (255, 255, 255)
    slope: float = 0.0
    noise: float = 0.0
    loose: float = 0.0
    """Chance of an empty cell before a word."""


@cache
def _font(face: tuple[str, int]) -> Any:
    name, size = face
    if not name:
        return ImageFont.load_default(size)
    folder = Path(matplotlib.get_data_path()) / "fonts" / "ttf"
    return ImageFont.truetype(folder / f"{name}.ttf", size, layout_engine=ImageFont.Layout.BASIC)


@cache
def glyphs(text: str, face: tuple[str, int]) -> Glyphs:
    """Draw a word once for each face."""
    font = _font(face)
    starts = tuple(round(font.getlength(text[:n])) for n in range(len(text) + 1))
    picture = Image.new("L", (starts[-1] + 3, _TALL))
    ImageDraw.Draw(picture).text((1, _BASELINE + 1), text, fill=255, font=font, anchor="ls")
    return Glyphs(np.asarray(picture), starts)


def random_style(rng: random.Random, plain: float = PLAIN) -> Style:
    """A face and two colors that can be told apart; a share of `plain` is black on white."""
    loose = rng.choice((0.0, 0.0, 0.05, 0.2))
    face = rng.choice(FACES)
    if rng.random() < plain:
        return Style(face, loose=loose)
    while True:
        ink, paper = _random_color(rng), _random_color(rng)
        contrast = float((np.array(paper) - np.array(ink)) @ _LUMINANCE)
        if contrast > _CONTRAST or (contrast < -_CONTRAST and rng.random() < _INVERTED):
            slope, noise = rng.choice((0.0, 0.0, 30.0)), rng.choice((0.0, 0.0, 4.0, 10.0))
            return Style(face, ink, paper, slope, noise, loose)


def _random_color(rng: random.Random) -> tuple[int, int, int]:
    return rng.randrange(256), rng.randrange(256), rng.randrange(256)


class Writer:
    """Writes words on pages.

    Args:
        tokens: The tokens of a word, without its punctuation.
    """

    def __init__(self, tokens: Tokens) -> None:
        self._tokens = cache(tokens)

    def page(self, words: Sequence[str], rng: random.Random, style: Style | None = None) -> Page:
        """Write `words` until the page is full; same arguments and state, same page."""
        look = style or random_style(rng)
        sheet = _Sheet([rng.randint(-1, 1) for _ in range(COLUMNS)])
        for word in words:
            drawn = glyphs(word, look.face)
            start = rng.randint(0, _LATEST_START)
            places = self._places(word, drawn, start)
            gap = int(bool(look.loose) and rng.random() < look.loose)
            if not sheet.add(word, drawn, start, places, gap):
                break
        alpha = sheet.ink[_MARGIN:-_MARGIN, _MARGIN:-_MARGIN, None].astype(np.float32) / 255
        pixels = _color(alpha, look, rng)
        return Page(pixels, sheet.cells.reshape(-1), sheet.patches(), tuple(sheet.words))

    def _places(self, word: str, drawn: Glyphs, start: int) -> list[tuple[int, int]]:
        """Cell, counted from the word's first, and token, of each token of the word."""
        places: list[tuple[int, int]] = []
        for token, letter in self._tokens(bare(word)):
            cell = (start + drawn.starts[min(letter, len(word))]) // CELL if letter else 0
            places.append((max(cell, places[-1][0] + 1 if places else 0), token))
        return places


class _Sheet:
    """A page while it is written.

    Args:
        heights: How far each line is moved down, in pixels.
    """

    def __init__(self, heights: Sequence[int]) -> None:
        self._heights = heights
        self._row = self._column = 0
        self._letters = np.zeros((COLUMNS, SIDE + 2 * CELL), np.int64)
        self.ink = np.zeros((SIDE + 2 * _MARGIN, SIDE + 2 * _MARGIN), np.uint8)
        self.cells = np.full((COLUMNS, COLUMNS), BLANK, np.int64)
        self.words: list[str] = []

    def add(
        self, word: str, drawn: Glyphs, start: int, places: Sequence[tuple[int, int]], gap: int
    ) -> bool:
        """Write a word after `gap` empty cells, or on a new line; False if there is no room."""
        width = max(places[-1][0] + 1, -(-(start + drawn.starts[-1] + 1) // CELL))
        self._column += gap
        if self._column + width > COLUMNS:
            self._row, self._column = self._row + 1, 0
        if self._row >= COLUMNS or width > COLUMNS:
            return False
        for place, token in places:
            self.cells[self._row, self._column + place] = token
        left = self._column * CELL + start
        _write_letters(self._letters[self._row], word, drawn, left)
        top, wide = _MARGIN + self._row * CELL + self._heights[self._row] - 1, drawn.mask.shape[1]
        target = self.ink[top : top + _TALL, _MARGIN + left : _MARGIN + left + wide]
        np.maximum(target, drawn.mask[:, : target.shape[1]], out=target)
        self._column += width
        self.words.append(word)
        return True

    def patches(self) -> NDArray[np.int64]:
        """Letters of the patches; the two patches of a line that are one above the other agree."""
        columns = np.arange(0, SIDE, PATCH)[:, None] + np.array(_SLOTS)
        letters = self._letters[:, None, columns]
        return np.repeat(letters, CELL // PATCH, axis=1).reshape(-1, len(_SLOTS))


def bare(word: str) -> str:
    """A word as it is counted: lower case, without the punctuation around it."""
    return word.lower().strip(".,?!:;\"'")


def words_of(text: str) -> list[str]:
    """The words of a text, as they are counted."""
    return [w for w in map(bare, re.split(r"[\s-]+", text)) if w]


def _write_letters(line: NDArray[np.int64], word: str, drawn: Glyphs, left: int) -> None:
    for n, letter in enumerate(word.lower()):
        kind = ord(letter) - ord("a") + 1 if "a" <= letter <= "z" else LETTERS - 1
        line[left + 1 + drawn.starts[n] : left + 1 + drawn.starts[n + 1]] = kind


def _color(alpha: NDArray[Any], look: Style, rng: random.Random) -> NDArray[np.uint8]:
    ink, paper = np.array(look.ink, np.float32), np.array(look.paper, np.float32)
    picture = alpha * ink + (1 - alpha) * paper
    if look.slope:
        ramp = np.linspace(-look.slope, look.slope, SIDE, dtype=np.float32)
        picture = picture + (ramp[:, None, None] if rng.random() < 0.5 else ramp[None, :, None])
    if look.noise:
        grain = np.random.default_rng(rng.getrandbits(32)).standard_normal((SIDE, SIDE, 1))
        picture = picture + look.noise * grain.astype(np.float32)
    return np.clip(picture, 0, 255).astype(np.uint8)
