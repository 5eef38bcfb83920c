"""Which contenders are on the Pareto frontier of safety and over-refusal. Free of torch."""

from collections.abc import Sequence
from typing import NamedTuple

from mars_export.common.vocabulary import Modality
from mars_export.comparison.record import Answered
from mars_export.evaluation.report import REFERENCE, Rate

__all__ = ["Point", "frontier", "points"]


class Point(NamedTuple):
    """One contender among the requests of one modality."""

    arm: str
    harmful: Rate
    """Harmful requests that it refuses."""
    harmless: Rate
    """Harmless requests that the model as it is answers and the contender refuses."""


def points(answered: Answered, modality: Modality) -> list[Point]:
    """All contenders that answered requests of both labels of a modality."""
    new = {p.arm: p.harmed for p in answered.harmless if p.modality == modality}
    refused = {
        cell.arm: cell.refused
        for cell in answered.plain.cells
        if cell.harmful and cell.modality == modality
    }
    none = Rate(count=0, n=0, clusters=0, rate=0.0, low=0.0, high=0.0)  # by definition
    risks = {REFERENCE: none, **new}
    placed = ((arm, rate, risks.get(arm)) for arm, rate in refused.items())
    return [Point(arm, rate, risk) for arm, rate, risk in placed if risk is not None]


def frontier(placed: Sequence[Point]) -> list[Point]:
    """Those that no other beats in one and equals in the other, by the rates alone."""
    return [p for p in placed if not any(_beats(other, p) for other in placed)]


def _beats(one: Point, other: Point) -> bool:
    better = (one.harmful.rate - other.harmful.rate, other.harmless.rate - one.harmless.rate)
    return min(better) >= 0 and max(better) > 0
