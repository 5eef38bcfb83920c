"""The look that the plots share: white ground, colors that color-blind readers tell apart."""

import io
from collections.abc import Callable
from typing import Any, Final

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

__all__ = ["ARMS", "BLUE", "GRAY", "INK", "LIGHT", "ORANGE", "WIDTH", "bare", "png", "titled"]

# Okabe and Ito's palette.
BLUE: Final = "#0072B2"
ORANGE: Final = "#D55E00"
GRAY: Final = "#6E6E6E"
LIGHT: Final = "#D9D9D9"
INK: Final = "#222222"

ARMS: Final = (
    *(BLUE, "#009E73", "#882255", "#56B4E9", "#E69F00", "#332288", "#999933", "#CC79A7"),
)
"""Colors of the arms of an evaluation; the reference is gray, harmful requests are orange."""

WIDTH: Final = 8.0
"""Inches; with DPI it fills a card's column on the Hub and on GitHub."""
DPI: Final = 150

_STYLE: Final[dict[str, Any]] = {
    "font.family": "DejaVu Sans",
    "font.size": 10,
    "text.color": INK,
    "axes.edgecolor": GRAY,
    "axes.labelcolor": INK,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": GRAY,
    "ytick.color": GRAY,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "figure.facecolor": "white",
    "axes.facecolor": "white",
}


def png(draw: Callable[[], Figure]) -> bytes:
    """Draw in this style, whatever the user's matplotlib settings, and render to PNG.

    The bytes hold no metadata, which would change from one machine to the next.
    """
    buffer = io.BytesIO()
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_STYLE)
        draw().savefig(buffer, format="png", dpi=DPI, metadata={"Software": None})
    return buffer.getvalue()


def titled(figure: Figure, title: str, subtitle: str) -> None:
    """Put a two-line heading at the top left and keep the axes below it."""
    height = figure.get_figheight()
    figure.text(0.012, 1 - 0.10 / height, title, fontsize=12.5, fontweight="bold", va="top")
    figure.text(0.012, 1 - 0.37 / height, subtitle, fontsize=9.5, color=GRAY, va="top")
    rect = (0.01, 0.0, 0.98, 1 - 0.66 / height)
    figure.set_layout_engine(ConstrainedLayoutEngine(rect=rect))


def bare(axes: Axes) -> None:
    """Leave only the x axis; rows are labeled directly."""
    axes.spines["left"].set_visible(False)
    axes.tick_params(left=False)
