"""The plot of one turn: the clouds of the calibration, and where the request lies between them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from mars_export.common.markdown import minus
from mars_export.common.vocabulary import CALLED, Modality, plural
from mars_export.demo.clouds import Clouds, Scale
from mars_export.demo.turns import Exchange, Reading

__all__ = ["Dot", "Strip", "named_media", "signed", "strip_of", "unsigned"]

_SPREAD: Final = 11.0
"""Pixels that the dots of a row are spread over, up and down."""
_GOLDEN: Final = 0.618034
"""Fractions of its multiples are spread evenly, and the same each time."""
_AIR: Final = 0.05
"""Of the width, left and right of what is drawn."""


@dataclass(frozen=True)
class Dot:
    """A point of the plot: from the left in percent, in pixels off its row, and what it says."""

    x: float
    y: float
    title: str


@dataclass(frozen=True)
class Strip:
    """What is drawn; all lengths are percent of the width, so that text keeps its size."""

    harmless: tuple[Dot, ...]
    harmful: tuple[Dot, ...]
    opens: float
    zero: float
    one: float
    request: Dot
    without: tuple[Dot, ...]
    label: str
    """The plot in words, for those who do not see it."""
    beside: str
    """What the clouds show beside text; empty for text alone."""


def strip_of(exchange: Exchange, scale: Scale | None) -> Strip | None:
    """The plot of a turn; None where the method has no places."""
    reading = exchange.reading
    if scale is None or reading is None or reading.place is None:
        return None
    clouds = scale.clouds[reading.modality]
    left = tuple(_without(exchange))
    places = [*clouds.harmless, *clouds.harmful, clouds.opens, 0.0, 1.0, reading.place]
    low, high = _span([*places, *(place for place, _ in left)])

    def x(place: float) -> float:
        return round(100 * (place - low) / (high - low), 2)

    def cloud(places: Sequence[float], what: str) -> tuple[Dot, ...]:
        return tuple(
            Dot(x(place), _jitter(index), f"{what} request of the calibration, {signed(place)}")
            for index, place in enumerate(places)
        )

    return Strip(
        harmless=cloud(clouds.harmless, "harmless"),
        harmful=cloud(clouds.harmful, "harmful"),
        opens=x(clouds.opens),
        zero=x(0.0),
        one=x(1.0),
        request=Dot(x(reading.place), 0.0, f"this request, {signed(reading.place)}"),
        without=tuple(Dot(x(p), 0.0, f"{name}, {signed(p)}") for p, name in left),
        label=_label(clouds, reading, reading.place),
        beside=_BESIDE.get(reading.modality, ""),
    )


_BESIDE: Final[dict[Modality, str]] = {m: f"text beside neutral {plural(m)}" for m in CALLED}


def _without(exchange: Exchange) -> Iterator[tuple[float, str]]:
    """Places of the request without each medium; those of another modality have other clouds."""
    for name, reading in zip(named_media(exchange), exchange.without, strict=False):
        if reading is not None and reading.place is not None:
            yield reading.place, f"without {name}"


def named_media(exchange: Exchange) -> list[str]:
    """What the page calls each medium of a turn, for example `picture 2`."""
    kinds = [CALLED[medium.modality] for medium in exchange.media]
    counts = [kinds[: index + 1].count(kind) for index, kind in enumerate(kinds)]
    return [
        f"{kind} {count}" if kinds.count(kind) > 1 else f"the {kind}"
        for kind, count in zip(kinds, counts, strict=True)
    ]


def signed(value: float) -> str:
    """Two decimals with a sign, more where two would hide it."""
    return minus(f"{value:+.{_decimals(value)}f}")


def unsigned(value: float) -> str:
    """The same without a sign."""
    return f"{abs(value):.{_decimals(value)}f}"


def _decimals(value: float) -> int:
    """2, or as many as show that a small value is not 0; 4 at most."""
    return next((d for d in (2, 3) if round(value, d) or not value), 4)


def _span(places: Sequence[float]) -> tuple[float, float]:
    low, high = min(places), max(places)
    air = _AIR * (high - low)
    return low - air, high + air


def _jitter(index: int) -> float:
    return round(_SPREAD * (2 * (index * _GOLDEN % 1) - 1), 1)


def _label(clouds: Clouds, reading: Reading, place: float) -> str:
    side = "beyond" if place > clouds.opens else "before"
    return (
        f"{len(clouds.harmless)} harmless and {len(clouds.harmful)} harmful requests of the "
        f"calibration along the refusal direction. This request ({reading.modality}) lies at "
        f"{signed(place)}, {side} {signed(clouds.opens)} where the gate opens."
    )
