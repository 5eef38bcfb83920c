"""Intervals and tests for rates and for paired rates. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import sqrt
from typing import TYPE_CHECKING, Final, Literal, NamedTuple

from mars_export.evaluation.report import Rate

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    Booleans = NDArray[bool_]

__all__ = [
    "CONFIDENCE",
    "Difference",
    "clopper_pearson",
    "kappa",
    "mcnemar",
    "paired_difference",
    "wilson",
]

CONFIDENCE: Final = 0.95
"""Two-sided confidence of every interval."""


class Difference(NamedTuple):
    """A difference of two paired proportions (-1 to 1) with its interval."""

    value: float
    low: float
    high: float


def wilson(count: int, n: int) -> Rate:
    """A rate with its Wilson score interval (Wilson 1927).

    With no event the upper bound is what to quote: `wilson(0, 100).high` is 0.037, "0 of 100,
    at most 3.7 %".

    Args:
        count: Events, 0 to `n`.
        n: Trials, at least 1.

    Raises:
        ValueError: `n` is not positive or `count` lies outside 0 to `n`.
    """
    return _rate(count, n, "wilson")


def clopper_pearson(count: int, n: int) -> Rate:
    """A rate with its exact interval (Clopper and Pearson 1934).

    It covers at least 95 % for every true rate and is wider than Wilson's. With no event the
    one-sided bound is close to 3 / n, the rule of three (Hanley and Lippman-Hand 1983); this
    two-sided interval ends at 3.7 / n.

    Args:
        count: Events, 0 to `n`.
        n: Trials, at least 1.

    Raises:
        ValueError: `n` is not positive or `count` lies outside 0 to `n`.
    """
    return _rate(count, n, "exact")


def _rate(count: int, n: int, method: Literal["wilson", "exact"]) -> Rate:
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(CONFIDENCE, method)
    return Rate(
        count=count, n=n, rate=count / n, low=float(interval.low), high=float(interval.high)
    )


def mcnemar(gained: int, lost: int) -> float:
    """Exact two-sided p-value of McNemar's test.

    Under the null hypothesis each discordant pair falls on either side with probability 1/2
    (McNemar 1947; the exact binomial form).

    Args:
        gained: Pairs that have the event in the second arm only.
        lost: Pairs that have it in the first arm only.
    """
    from scipy.stats import binomtest

    discordant = gained + lost
    return float(binomtest(gained, discordant, 0.5).pvalue) if discordant else 1.0


def paired_difference(both: int, first: int, second: int, neither: int) -> Difference:
    """Second minus first proportion of the same subjects, with Newcombe's interval.

    Method 10 of Newcombe (1998), Statistics in Medicine 17:2635-2650: Wilson limits of the two
    proportions, combined with their correlation phi. The numerator of phi is corrected for
    continuity when it is positive; phi is 0 when a margin is empty.

    Args:
        both: Subjects with the event in both arms.
        first: With the event in the first arm only.
        second: With the event in the second arm only.
        neither: With it in no arm.

    Raises:
        ValueError: There are no subjects.
    """
    n = both + first + second + neither
    before, after = wilson(both + first, n), wilson(both + second, n)
    phi = _correlation(both, first, second, neither)
    below = _combine(after.rate - after.low, before.high - before.rate, phi)
    above = _combine(after.high - after.rate, before.rate - before.low, phi)
    value = (second - first) / n
    return Difference(value, max(-1.0, value - below), min(1.0, value + above))


def _correlation(both: int, first: int, second: int, neither: int) -> float:
    n = both + first + second + neither
    margins = (both + first) * (second + neither) * (both + second) * (first + neither)
    if margins == 0:
        return 0.0
    cross: float = both * neither - first * second
    if cross > 0:
        cross = max(0.0, cross - n / 2)
    return cross / sqrt(margins)


def _combine(one: float, other: float, phi: float) -> float:
    """Length of the third side of a triangle whose sides `one` and `other` enclose acos(phi)."""
    return sqrt(max(0.0, one * one - 2 * phi * one * other + other * other))


def kappa(one: Sequence[bool] | Booleans, other: Sequence[bool] | Booleans) -> float:
    """Agreement of two raters beyond chance (Cohen 1960); 1 where neither ever differs.

    Args:
        one: What the first says of each item; also a boolean array (n,).
        other: What the second says, in the same order.
    """
    import numpy

    a, b = numpy.asarray(one, dtype=bool), numpy.asarray(other, dtype=bool)
    accuracy, first, second = (float(x.mean()) for x in (a == b, a, b))
    chance = first * second + (1 - first) * (1 - second)
    return (accuracy - chance) / (1 - chance) if chance < 1 else 1.0
