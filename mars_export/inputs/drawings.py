"""The kinds of neutral pictures: what a calibration draws beside text. Free of torch.

None of them shows anything to refuse. A kind is a function of a source of chance and a size.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib.util import find_spec
from random import Random
from typing import TYPE_CHECKING, Final

from mars_export.common.errors import ExportError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from PIL.Image import Image

__all__ = ["KINDS", "MIXTURE", "PHOTO", "Kind", "photos_installed"]

Size = tuple[int, int]
Color = tuple[int, int, int]
Point = tuple[float, float]
Kind = Callable[[Random, Size], "Image"]
"""Draws an RGB picture of a size (width, height) in pixels; the same source gives the same one."""

PHOTO: Final = "photo"

_CANVAS: Final = 448
"""Side of the square that a scene is drawn on before it is brought to size."""
_TEXT: Final = (
    "apple autumn bakery balcony bicycle blanket blossom breakfast bridge button candle castle "
    "chair cheese cloud coffee copper cotton cousin dinner evening feather flower forest friend "
    "garden gentle ginger guitar harbor holiday honey island jacket kitchen ladder lantern lemon "
    "letter library market meadow melody mirror morning mountain museum music notebook ocean "
    "orange painting paper pebble pencil picnic pillow planet pocket rainbow river sandwich "
    "season silver sister spring station story summer sweater teacher ticket travel valley "
    "village violet walnut weather window winter yellow"
)
"""The words that are written in pictures."""


def photos_installed() -> bool:
    """Whether scikit-learn, which ships the two photographs, is installed."""
    return find_spec("sklearn") is not None


def _color(source: Random, size: Size) -> Image:
    """One random color."""
    from PIL import Image

    return Image.new("RGB", size, _any_color(source))


def _noise(source: Random, size: Size) -> Image:
    """Random pixels, in color or gray, fine or in blocks."""
    from PIL import Image

    grain = source.choice((1, 2, 4, 8))
    width, height = (math.ceil(side / grain) for side in size)
    bands = source.choice(("RGB", "L"))
    pixels = source.randbytes(width * height * len(bands))
    blocks = Image.frombytes(bands, (width, height), pixels).convert("RGB")
    return blocks.resize(size, Image.Resampling.NEAREST)


def _gradient(source: Random, size: Size) -> Image:
    """Four random colors, one a corner, that run into each other."""
    from PIL import Image

    corners = Image.frombytes("RGB", (2, 2), source.randbytes(12))
    return corners.resize(size, Image.Resampling.BILINEAR, box=(0.5, 0.5, 1.5, 1.5))


def _pattern(source: Random, size: Size) -> Image:
    """Stripes, checks or dots of one random color on another."""
    import numpy as np
    from PIL import Image

    period = max(2, round(min(size) / source.uniform(4, 24)))
    x, y = np.meshgrid(*(np.arange(side, dtype=np.int32) for side in size))
    mask = source.choice((_stripes, _checks, _dots))(source, x, y, period)
    ground = _any_color(source)
    ink = tuple((band + source.randint(80, 176)) % 256 for band in ground)
    colors = np.array((ground, ink), np.uint8)
    return Image.fromarray(colors[mask.astype(np.uint8)])


def _stripes(
    source: Random, x: NDArray[np.int32], y: NDArray[np.int32], period: int
) -> NDArray[np.bool_]:
    across, down = source.choice(((1, 0), (0, 1), (1, 1), (1, -1)))
    mask: NDArray[np.bool_] = (across * x + down * y) // period % 2 == 0
    return mask


def _checks(
    _source: Random, x: NDArray[np.int32], y: NDArray[np.int32], period: int
) -> NDArray[np.bool_]:
    mask: NDArray[np.bool_] = (x // period + y // period) % 2 == 0
    return mask


def _dots(
    source: Random, x: NDArray[np.int32], y: NDArray[np.int32], period: int
) -> NDArray[np.bool_]:
    radius, middle = period * source.uniform(0.25, 0.45), (period - 1) / 2
    mask: NDArray[np.bool_] = (x % period - middle) ** 2 + (y % period - middle) ** 2 <= radius**2
    return mask


def _writing(source: Random, size: Size) -> Image:
    """Harmless words, black on white."""
    from PIL import Image, ImageDraw, ImageFont

    picture = Image.new("RGB", size, "white")
    letters = max(6, round(min(size) / source.uniform(6, 16)))
    font, margin = ImageFont.load_default(size=letters), min(size) // 16
    words = source.choices(_TEXT.split(), k=source.randint(1, 40))
    rows = _wrapped(words, font.getlength, size[0] - 2 * margin)
    step = round(1.3 * letters)
    rows = rows[: max(1, (size[1] - 2 * margin) // step)]
    top = margin + source.randint(0, max(0, size[1] - 2 * margin - len(rows) * step))
    draw = ImageDraw.Draw(picture)
    for number, row in enumerate(rows):
        draw.text((margin, top + number * step), row, "black", font=font)
    return picture


def _wrapped(words: Sequence[str], length: Callable[[str], float], limit: float) -> list[str]:
    rows: list[str] = []
    for word in words:
        if rows and length(f"{rows[-1]} {word}") <= limit:
            rows[-1] += f" {word}"
        else:
            rows.append(word)
    return rows


class _Scene:
    """A square to draw on, from (0, 0), top left, to (1, 1)."""

    def __init__(self, source: Random) -> None:
        from PIL import Image, ImageDraw

        self.source = source
        self.picture = Image.new("RGB", (_CANVAS, _CANVAS))
        self._draw = ImageDraw.Draw(self.picture)
        self.between = source.uniform

    def near(self, color: Color) -> Color:
        """A color like this one."""
        red, green, blue = (min(255, max(0, c + self.source.randint(-30, 30))) for c in color)
        return red, green, blue

    def box(self, left: float, top: float, right: float, bottom: float, color: Color) -> None:
        """A filled rectangle."""
        self._draw.rectangle([_CANVAS * side for side in (left, top, right, bottom)], color)

    def disk(self, x: float, y: float, radius: float, color: Color, flat: float = 1.0) -> None:
        """A filled ellipse, `flat` times as high as it is wide."""
        sides = (x - radius, y - radius * flat, x + radius, y + radius * flat)
        self._draw.ellipse([_CANVAS * side for side in sides], color)

    def shape(self, *points: Point, color: Color) -> None:
        """A filled polygon."""
        self._draw.polygon([(_CANVAS * x, _CANVAS * y) for x, y in points], color)

    def sky(self) -> None:
        """Blue sky or sunset, a sun and clouds."""
        self.box(0, 0, 1, 1, self.near(self.source.choice(((150, 200, 240), (245, 190, 150)))))
        self.disk(self.between(0.1, 0.9), self.between(0.1, 0.25), 0.07, self.near((250, 220, 90)))
        for _ in range(self.source.randint(0, 3)):
            x, y = self.between(0.1, 0.9), self.between(0.08, 0.3)
            for puff in range(4):
                self.disk(x + 0.06 * puff, y + 0.02 * (puff % 2), 0.06, (245, 245, 248), 0.7)

    def tree(self, x: float, foot: float, height: float) -> None:
        """A round tree or a fir."""
        leaf, half = self.near((50, 130, 60)), height * 0.3
        self.box(x - 0.02, foot - height * 0.5, x + 0.02, foot, self.near((110, 75, 45)))
        if self.source.random() < 0.5:
            self.disk(x, foot - height * 0.65, half, leaf, 1.15)
        else:
            for step in (0.25, 0.5, 0.75):
                tip = (x, foot - height * (step + 0.3))
                low, wide = foot - height * step, half * (1.2 - step)
                self.shape((x - wide, low), tip, (x + wide, low), color=leaf)


def _house(scene: _Scene) -> None:
    scene.sky()
    ground = scene.between(0.65, 0.8)
    scene.box(0, ground, 1, 1, scene.near((110, 170, 80)))
    left, top, wall = scene.between(0.15, 0.5), scene.between(0.4, 0.5), scene.near((215, 190, 160))
    foot, right = ground + 0.05, left + 0.35
    scene.box(left, top, right, foot, wall)
    roof = ((left - 0.05, top), ((left + right) / 2, top - 0.18), (right + 0.05, top))
    scene.shape(*roof, color=scene.near((170, 70, 60)))
    scene.box(left + 0.05, foot - 0.16, left + 0.13, foot, scene.near((100, 70, 50)))
    scene.box(right - 0.15, top + 0.06, right - 0.05, top + 0.15, scene.near((190, 220, 240)))
    scene.tree(left - 0.1, foot, 0.3)
    scene.tree(right + 0.13, foot + 0.05, scene.between(0.25, 0.45))


def _hills(scene: _Scene) -> None:
    scene.sky()
    for peak in range(3):
        x, top = 0.2 + 0.3 * peak + scene.between(-0.1, 0.1), scene.between(0.3, 0.5)
        scene.shape((x - 0.4, 0.8), (x, top), (x + 0.4, 0.8), color=scene.near((130, 130, 150)))
        scene.shape((x - 0.06, top + 0.075), (x, top), (x + 0.06, top + 0.075), color=(240,) * 3)
    scene.disk(0.3, 1.05, 0.7, scene.near((90, 150, 80)), 0.5)
    scene.disk(0.9, 1.1, 0.6, scene.near((110, 170, 80)), 0.55)
    for _ in range(scene.source.randint(2, 5)):
        scene.tree(scene.between(0.05, 0.95), scene.between(0.8, 0.95), scene.between(0.15, 0.25))


def _sea(scene: _Scene) -> None:
    scene.sky()
    level = scene.between(0.5, 0.65)
    scene.box(0, level, 1, 1, scene.near((50, 110, 170)))
    scene.disk(scene.between(0, 1), 1.05, 0.8, scene.near((235, 210, 160)), 0.25)
    x, y = scene.between(0.25, 0.75), level + 0.08
    hull = ((x - 0.15, y), (x + 0.15, y), (x + 0.1, y + 0.07), (x - 0.1, y + 0.07))
    scene.shape(*hull, color=scene.near((150, 70, 50)))
    scene.box(x - 0.005, y - 0.3, x + 0.005, y, (90, 70, 50))
    scene.shape((x + 0.02, y - 0.3), (x + 0.02, y - 0.03), (x + 0.15, y - 0.03), color=(250,) * 3)
    scene.shape((x - 0.02, y - 0.25), (x - 0.02, y - 0.03), (x - 0.1, y - 0.03), color=(250,) * 3)


def _street(scene: _Scene) -> None:
    scene.sky()
    left = -0.05
    while left < 1:
        right, top = left + scene.between(0.15, 0.25), scene.between(0.25, 0.5)
        scene.box(left, top, right, 0.8, scene.near((160, 140, 130)))
        for row in range(int((0.75 - top) / 0.09)):
            for column in range(int((right - left) / 0.07)):
                x, y = left + 0.025 + 0.07 * column, top + 0.03 + 0.09 * row
                scene.box(x, y, x + 0.035, y + 0.05, scene.near((220, 215, 160)))
        left = right
    scene.box(0, 0.8, 1, 1, scene.near((100, 100, 105)))
    x = scene.between(0.1, 0.6)
    paint = scene.near(scene.source.choice(((190, 60, 60), (60, 90, 180))))
    scene.box(x, 0.8, x + 0.3, 0.88, paint)
    scene.shape((x + 0.05, 0.8), (x + 0.09, 0.73), (x + 0.2, 0.73), (x + 0.25, 0.8), color=paint)
    for wheel in (x + 0.07, x + 0.23):
        scene.disk(wheel, 0.88, 0.035, (35, 35, 40))


def _table(scene: _Scene) -> None:
    scene.box(0, 0, 1, 1, scene.near((225, 215, 195)))
    scene.box(0, 0.65, 1, 1, scene.near((165, 115, 70)))
    x, cup = scene.between(0.15, 0.35), scene.near((90, 130, 180))
    scene.disk(x + 0.18, 0.58, 0.07, cup)
    scene.disk(x + 0.18, 0.58, 0.04, scene.near((225, 215, 195)))
    scene.shape((x - 0.02, 0.45), (x + 0.2, 0.45), (x + 0.16, 0.75), (x + 0.02, 0.75), color=cup)
    scene.disk(x + 0.09, 0.45, 0.11, scene.near((90, 55, 35)), 0.2)
    plate = scene.between(0.65, 0.75)
    scene.disk(plate, 0.78, 0.2, (240, 240, 240), 0.35)
    for fruit in range(scene.source.randint(1, 3)):
        color = scene.source.choice(((200, 50, 40), (235, 150, 40), (130, 180, 60)))
        scene.disk(plate - 0.08 + 0.08 * fruit, 0.72, 0.06, scene.near(color))


def _flowers(scene: _Scene) -> None:
    scene.sky()
    scene.box(0, 0.7, 1, 1, scene.near((100, 165, 80)))
    for number in range(scene.source.randint(2, 4)):
        x, y = 0.15 + 0.23 * number + scene.between(-0.04, 0.04), scene.between(0.4, 0.6)
        scene.box(x - 0.008, y, x + 0.008, 0.9, scene.near((60, 130, 60)))
        scene.disk(x + 0.05, 0.75, 0.05, scene.near((60, 140, 60)), 0.4)
        petal = _any_color(scene.source)
        for part in range(6):
            angle = math.tau * part / 6
            scene.disk(x + 0.06 * math.cos(angle), y + 0.06 * math.sin(angle), 0.04, petal)
        scene.disk(x, y, 0.035, scene.near((240, 200, 70)))


_SCENES: Final = (_house, _hills, _sea, _street, _table, _flowers)


def _scene(source: Random, size: Size) -> Image:
    """A simple drawn scene: a house, hills, the sea, a street, a table or flowers."""
    from PIL import ImageOps

    scene = _Scene(source)
    source.choice(_SCENES)(scene)
    return ImageOps.fit(scene.picture, size)


def _photo(source: Random, size: Size) -> Image:
    """A random part of one of the two photographs of scikit-learn, perhaps mirrored."""
    from PIL import Image, ImageOps

    photo = source.choice(_photos())
    share = source.uniform(0.3, 1)
    scale = share * min(whole / side for whole, side in zip(photo.size, size, strict=True))
    width, height = (scale * side for side in size)
    left, top = source.uniform(0, photo.width - width), source.uniform(0, photo.height - height)
    box = (left, top, min(photo.width, left + width), min(photo.height, top + height))
    part = photo.resize(size, Image.Resampling.BICUBIC, box=box)
    return ImageOps.mirror(part) if source.random() < 0.5 else part


@lru_cache(maxsize=1)
def _photos() -> tuple[Image, ...]:
    from PIL import Image

    try:
        from sklearn.datasets import load_sample_images
    except ImportError as error:
        raise ExportError(
            "Neutral pictures of the kind photo need scikit-learn: pip install scikit-learn"
        ) from error
    return tuple(Image.fromarray(photo) for photo in load_sample_images().images)


def _any_color(source: Random) -> Color:
    return source.randrange(256), source.randrange(256), source.randrange(256)


KINDS: Final[dict[str, Kind]] = {
    "color": _color,
    "noise": _noise,
    "gradient": _gradient,
    "pattern": _pattern,
    "writing": _writing,
    "scene": _scene,
    PHOTO: _photo,
}
"""By name; those of the paper come first."""

MIXTURE: Final = tuple(kind for kind in KINDS if kind != PHOTO)
"""Every kind that is drawn. What is installed does not change it."""
