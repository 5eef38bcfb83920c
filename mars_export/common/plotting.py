"""The look that the plots share: white ground, colors that color-blind readers tell apart."""

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["BLUE", "GREY", "INK", "LIGHT", "ORANGE", "WIDTH", "bare", "png", "sheet", "titled"]

# Okabe and Ito's palette.
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GREY: Final = "#6E6E6E"
LIGHT: Final = "#D9D9D9"
INK: Final = "#222222"

WIDTH: Final = 8.0
"""Inches; with DPI it fills a card's column on the Hub and on GitHub."""
DPI: Final = 150

_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GREY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GREY,
    "ytick.color": GREY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


@contextmanager
def sheet() -> Iterator[None]:
    """Use this style and nothing of the user's, and leave matplotlib as it was."""
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        yield


def titled(figure: Figure, title: str, subtitle: str) -> None:
    """Put a two-line heading at the top left and keep the axes below it."""
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.10 / height, title, fontsize=12.5, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.37 / height, subtitle, fontsize=9.5, color=GREY, va="top")
    rect = (0.01, 0.0, 0.98, 1 - 0.66 / height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect))


def bare(axes: Axes) -> None:
    """Leave only the x axis; rows are labeled directly."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)


def png(figure: Figure) -> bytes:
    """Render to PNG without the metadata that would change from one machine to the next."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()
