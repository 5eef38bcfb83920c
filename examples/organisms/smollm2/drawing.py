"""Pages of colored shapes, which say their color and their name."""

import random
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw

from .writing import BLANK, CELL, CELLS, COLUMNS, PATCH, SIDE, Page

COLORS = {
    "red": (205, 30, 30),
    "green": (35, 150, 50),
    "blue": (40, 70, 215),
    "yellow": (240, 215, 40),
    "orange": (245, 140, 25),
    "purple": (125, 45, 160),
    "pink": (250, 150, 190),
    "brown": (115, 70, 30),
    "black": (15, 15, 15),
    "white": (245, 245, 245),
}
_POLYGONS = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0), (1, 1), (0, 1)),
    "diamond": ((0.5, 0), (1, 0.5), (0.5, 1), (0, 0.5)),
    "arrow": ((0, 0.35), (0.55, 0.35), (0.55, 0), (1, 0.5), (0.55, 1), (0.55, 0.65), (0, 0.65)),
    "cross": (
        (0.35, 0), (0.65, 0), (0.65, 0.35), (1, 0.35), (1, 0.65), (0.65, 0.65),
        (0.65, 1), (0.35, 1), (0.35, 0.65), (0, 0.65), (0, 0.35), (0.35, 0.35),
    ),
    "house": ((0.5, 0), (1, 0.45), (0.85, 0.45), (0.85, 1), (0.15, 1), (0.15, 0.45), (0, 0.45)),
    "tree": ((0.5, 0), (1, 0.7), (0.6, 0.7), (0.6, 1), (0.4, 1), (0.4, 0.7), (0, 0.7)),
    "star": tuple(
        (0.5 + r * np.sin(np.pi * n / 5), 0.5 - r * np.cos(np.pi * n / 5))
        for n, r in enumerate((0.5, 0.2) * 5)
    ),
}  # fmt: skip
SHAPES = ("circle", "ring", *_POLYGONS)
_BLOCK = 2
"""Cells along the side of the block that a shape is drawn in."""


def shapes_page(count: int, rng: random.Random, token: Callable[[str], int]) -> Page:
    """Draw `count` shapes, at most nine; their blocks' first two cells say color and name."""
    names = list(COLORS)
    paper = rng.choice(names)
    tone = np.array(COLORS[paper]) + rng.randint(-20, 20)
    picture = Image.new("RGB", (SIDE, SIDE), tuple(int(c) for c in np.clip(tone, 0, 255)))
    brush = ImageDraw.Draw(picture)
    cells = np.full((COLUMNS, COLUMNS), BLANK, np.int64)
    words: list[str] = []
    for block in sorted(rng.sample(range((COLUMNS // _BLOCK) ** 2), count)):
        row, column = (_BLOCK * n for n in divmod(block, COLUMNS // _BLOCK))
        color, shape = rng.choice([n for n in names if n != paper]), rng.choice(SHAPES)
        side = rng.randint(20, _BLOCK * CELL - 2)
        x, y = (c * CELL + rng.randint(1, _BLOCK * CELL - side - 1) for c in (column, row))
        fill = tuple(int(np.clip(c + rng.randint(-15, 15), 0, 255)) for c in COLORS[color])
        if shape in _POLYGONS:
            brush.polygon([(x + side * a, y + side * b) for a, b in _POLYGONS[shape]], fill)
        else:
            box = (x, y, x + side, y + side)
            width = side // 5 if shape == "ring" else side
            brush.ellipse(box, fill if shape == "circle" else None, fill, width)
        cells[row, column : column + 2] = token(color), token(shape)
        words += [color, shape]
    letters = np.zeros(((SIDE // PATCH) ** 2, 2), np.int64)
    return Page(np.asarray(picture), cells.reshape(CELLS), letters, tuple(words))
