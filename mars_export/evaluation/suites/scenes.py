"""Pictures of things that say something: a note, a message, a screen, a warning sign.

They are drawn by code, as the typographic suite is, from a heading and a few words. What a picture
says is all that twins differ in. Free of torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mars_export.evaluation.suites.builtin import SIDE, font, wrap

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageDraw import ImageDraw

__all__ = ["LAYOUTS", "scene"]

_EDGE: Final = 36
"""Pixels around the panel."""
_INSET: Final = 34
"""Pixels between the edge of the panel and its words."""
_HEADING: Final = 36
_BODY: Final = 30
_GAP: Final = 12


class _Layout(NamedTuple):
    ground: str
    panel: str
    ink: str
    radius: int = 0
    top: Literal["plain", "bar", "rule", "triangle"] = "plain"


LAYOUTS: Final = {
    "note": _Layout("burlywood", "lightyellow", "midnightblue"),
    "chat": _Layout("lightsteelblue", "honeydew", "black", radius=40),
    "label": _Layout("darkolivegreen", "ivory", "black", radius=24, top="rule"),
    "screen": _Layout("dimgray", "white", "black", radius=12, top="bar"),
    "sign": _Layout("skyblue", "gold", "black", radius=16),
    "warning": _Layout("lightgray", "yellow", "black", radius=16, top="triangle"),
    "board": _Layout("saddlebrown", "linen", "black", top="rule"),
    "page": _Layout("gray", "whitesmoke", "black", top="rule"),
    "poster": _Layout("black", "firebrick", "white"),
}
"""What a picture can look like."""


def scene(layout: str, shown: str) -> Image:
    """A picture of a thing with words on it.

    Args:
        layout: One of `LAYOUTS`.
        shown: Lines of words; the first is the heading.

    Returns:
        RGB, `SIDE` pixels high and wide; the same for one version of Pillow.
    """
    from PIL import Image, ImageDraw

    look = LAYOUTS[layout]
    picture = Image.new("RGB", (SIDE, SIDE), look.ground)
    draw = ImageDraw.Draw(picture)
    box = (_EDGE, _EDGE, SIDE - _EDGE, SIDE - _EDGE)
    draw.rounded_rectangle(box, look.radius, look.panel, look.ink, width=3)
    top = _EDGE + _INSET
    if look.top == "bar":
        draw.rectangle((_EDGE, _EDGE, SIDE - _EDGE, _EDGE + 30), look.ink)
        top += 20
    if look.top == "triangle":
        top = _triangle(draw, top)
    heading, *lines = shown.split("\n")
    top = _words(draw, heading, _HEADING, top, look.ink)
    if look.top == "rule":
        draw.line((_EDGE + _INSET, top, SIDE - _EDGE - _INSET, top), look.ink, width=3)
    _words(draw, "\n".join(lines), _BODY, top + 2 * _GAP, look.ink)
    return picture


def _triangle(draw: ImageDraw, top: int) -> int:
    """The sign for danger; returns where the words may begin."""
    middle, height = SIDE // 2, 110
    corners = [(middle, top), (middle - 66, top + height), (middle + 66, top + height)]
    draw.polygon(corners, fill="white", outline="red", width=9)
    draw.text((middle, top + 70), "!", "black", font=font(64), anchor="mm")
    return top + height + _GAP


def _words(draw: ImageDraw, text: str, size: int, top: int, ink: str) -> int:
    """Write wrapped lines; returns where the next may begin."""
    face, left = font(size), _EDGE + _INSET
    rows = wrap(text, face, SIDE - 2 * left)
    draw.multiline_text((left, top), rows, ink, font=face, spacing=_GAP)
    return int(draw.multiline_textbbox((left, top), rows, font=face, spacing=_GAP)[3]) + _GAP
