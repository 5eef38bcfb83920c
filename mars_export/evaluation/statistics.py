"""Statistics of rates: intervals, tests, margins. Free of torch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from fractions import Fraction
from functools import lru_cache
from math import comb, fsum, sqrt
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mars_export.evaluation.report import Rate

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    Booleans = NDArray[bool_]

__all__ = [
    "CONFIDENCE",
    "FEWEST_RESAMPLED",
    "TAIL",
    "Difference",
    "SignTest",
    "bounds",
    "clopper_pearson",
    "clustered_difference",
    "clustered_rate",
    "exact_rate",
    "holm",
    "kappa",
    "non_inferior",
    "one_sided",
    "paired_change",
    "resampled",
    "sign_test",
    "two_sided",
]

CONFIDENCE: Final = 0.95
"""Two-sided confidence of every interval."""
_DRAWS: Final = 2000
_AT_ONCE: Final = 2_000_000
"""Numbers that are resampled at once, to bound memory."""
_KEPT: Final = 1024
"""Results that are kept: the tables of a report repeat, and a card counts all of them again."""
_MIN_CLUSTERS: Final = 2
FEWEST_RESAMPLED: Final = 10
"""Clusters that must differ before resampling says how much clusters differ."""
TAIL: Final = (1 + CONFIDENCE) / 2
"""Confidence of each bound of an interval."""


class Difference(NamedTuple):
    """A proportion, or a difference of two (-1 to 1), with its interval."""

    value: float
    low: float
    high: float


class SignTest(NamedTuple):
    """Clusters that gained, and that lost, on balance, and how well chance explains it."""

    gained: int
    lost: int
    p_value: float


def exact_rate(count: int, n: int) -> Rate:
    """A rate of independent requests with its exact interval (Clopper and Pearson 1934).

    With no event the upper bound is what to quote: `exact_rate(0, 100).high` is 0.036, "0 of 100,
    at most 3.7 %", rounded outwards.

    Args:
        count: Events, 0 to `n`.
        n: Trials, at least 1.

    Raises:
        ValueError: `n` is not positive or `count` lies outside 0 to `n`.
    """
    if not 0 <= count <= n or n < 1:
        raise ValueError(f"there is no rate of {count} events in {n} trials")
    value, low, high = clopper_pearson(count / n, n, n, TAIL)
    return Rate(count=count, n=n, clusters=n, rate=value, low=low, high=high)


def clustered_rate(events: Sequence[bool], clusters: Sequence[Hashable]) -> Rate:
    """A rate with an interval that allows for clusters; exact where each request is its own.

    A cluster counts as one independent request at most, so that a request repeated in it narrows
    nothing; as less where clusters differ so much that their sizes matter (`bounds`).

    Args:
        events: Whether each request has the event.
        clusters: What each request belongs to.

    Raises:
        ValueError: There are no requests.
    """
    sums = _sums(events, clusters)
    value, low, high = bounds(sums, len(sums), TAIL)
    return Rate(
        count=sum(events), n=len(events), clusters=len(sums), rate=value, low=low, high=high
    )


def bounds(
    clusters: Sequence[tuple[float, int]], requests: int, confidence: float = CONFIDENCE
) -> Difference:
    """A proportion with one-sided bounds that allow for clusters (Korn and Graubard 1998).

    The exact bounds of Clopper and Pearson, for the number of independent requests that would vary
    as much as the clusters do. With rare events that number cannot be told from the data, so it is
    taken with one more cluster, in which everything is an event (nothing, for the lower bound):
    without any event, a cluster counts as one request.

    Args:
        clusters: Events and requests of each.
        requests: There is never more evidence than so many independent ones.
        confidence: Of each bound.
    """
    if not clusters:
        raise ValueError("there is no rate of no requests")
    return _bounds(tuple(sorted(clusters)), requests, confidence)


@lru_cache(_KEPT)
def _bounds(
    clusters: tuple[tuple[float, int], ...], requests: int, confidence: float
) -> Difference:
    value = sum(count for count, _ in clusters) / sum(n for _, n in clusters)
    return clopper_pearson(
        value,
        min(_effective(clusters, 0), requests),
        min(_effective(clusters, 1), requests),
        confidence,
    )


@lru_cache(maxsize=4096)
def clopper_pearson(value: float, below: float, above: float, confidence: float) -> Difference:
    """A proportion with one-sided bounds, of so many requests for the lower and the upper one."""
    from scipy.special import betaincinv

    low = high = value
    if value > 0:
        low = float(betaincinv(value * below, below - value * below + 1, 1 - confidence))
    if value < 1:
        high = float(betaincinv(value * above + 1, above - value * above, confidence))
    return Difference(value, min(low, value), max(high, value))


def _effective(clusters: Sequence[tuple[float, int]], extra: int) -> float:
    """Independent requests that vary as these clusters do, with one more of mean size."""
    total, number = sum(n for _, n in clusters), len(clusters)
    mean = total / number
    events = [*clusters, (extra * mean, mean)]
    share = sum(count for count, _ in events) / (total + mean)
    if share in (0, 1):
        return float(number)
    squares = fsum((count - share * n) ** 2 for count, n in events)
    variance = squares / (total + mean) ** 2 * (number + 1) / number
    freedom = _t(max(total - 1, 1)) / _t(max(number - 1, 1))
    return float(share * (1 - share) / variance * freedom**2)


@lru_cache(maxsize=4096)
def _t(freedom: int) -> float:
    """The quantile of Student's distribution at `CONFIDENCE`."""
    from scipy.special import stdtrit

    return float(stdtrit(freedom, CONFIDENCE))


def one_sided(more: int, less: int) -> float:
    """Exact sign test: the chance of so many of one direction, or more, where both are as likely.

    Args:
        more: Clusters that changed in the direction of interest.
        less: Clusters that changed in the other one.
    """
    n = more + less
    return sum(comb(n, k) for k in range(more, n + 1)) / (1 << n)


def two_sided(more: int, less: int) -> float:
    """The same test for either direction: twice the smaller of the two chances, at most 1."""
    return min(1.0, 2 * one_sided(max(more, less), min(more, less)))


def sign_test(changes: Sequence[int | Fraction], clusters: Sequence[Hashable]) -> SignTest:
    """Exact two-sided sign test over the clusters' net changes.

    Under the null hypothesis a cluster that changes does so in either direction with probability
    1/2. Where each cluster is one request this is McNemar's exact test (McNemar 1947).

    Args:
        changes: As of `paired_change`.
        clusters: What each request belongs to.
    """
    nets = [net for net, _ in _sums(changes, clusters)]
    gained, lost = sum(net > 0 for net in nets), sum(net < 0 for net in nets)
    return SignTest(gained, lost, two_sided(gained, lost))


def paired_change(changes: Sequence[int | Fraction], clusters: Sequence[Hashable]) -> Difference:
    """Mean change of the same requests with its 95 % interval, clusters allowed for.

    Whole clusters are drawn with replacement (`clustered_difference`) where at least
    `FEWEST_RESAMPLED` differ from the most common change. Where fewer do, resampling cannot show
    how often the others would; then the bounds of the shares gained and lost are combined
    (square-and-add: Zou and Donner 2008, Statistics in Medicine 27:1693-1702). Neither the order of
    the requests nor the name of the event matters: the change of the opposite event is minus this
    one.

    Args:
        changes: Of each request: 1 for an event gained, -1 for one lost, else 0; a share of them
            where it was put several times.
        clusters: What each request belongs to.

    Raises:
        ValueError: There are no requests.
    """
    groups: dict[Hashable, list[int | Fraction]] = {}
    for change, cluster in zip(changes, clusters, strict=True):
        groups.setdefault(cluster, []).append(change)
    tables = sorted(
        (sum(c for c in g if c > 0), -sum(c for c in g if c < 0), len(g)) for g in groups.values()
    )
    mirrored = sorted((lost, gained, n) for gained, lost, n in tables)
    if mirrored > tables:  # one of the two is computed, whichever was given
        value, low, high = _paired_change(tuple(mirrored))
        return Difference(-value, -high, -low)
    return _paired_change(tuple(tables))


@lru_cache(_KEPT)
def _paired_change(tables: tuple[tuple[int | Fraction, int | Fraction, int], ...]) -> Difference:
    """Of clusters, each with what its requests gained and lost, and how many they are."""
    rates = Counter(Fraction(gained - lost) / n for gained, lost, n in tables)
    if len(tables) - max(rates.values(), default=0) >= FEWEST_RESAMPLED:
        value, low, high = _resampled([(float(g - lost), n) for g, lost, n in tables], 0)
    else:
        gained = bounds([(float(g), n) for g, _, n in tables], len(tables), TAIL)
        lost = bounds([(float(g), n) for _, g, n in tables], len(tables), TAIL)
        value = gained.value - lost.value
        low = value - _third_side(gained.value - gained.low, lost.high - lost.value, gained, lost)
        high = value + _third_side(gained.high - gained.value, lost.value - lost.low, gained, lost)
    return Difference(value, max(-1.0, min(low, value)), min(1.0, max(high, value)))


def _third_side(one: float, other: float, gained: Difference, lost: Difference) -> float:
    """Distance of a limit of gained - lost, whose limits are `one` and `other` away.

    Shares of the same requests are correlated: what is gained cannot be lost.
    """
    spread = gained.value * (1 - gained.value) * lost.value * (1 - lost.value)
    correlation = -gained.value * lost.value / sqrt(spread) if spread > 0 else 0.0
    return sqrt(one * one - 2 * correlation * one * other + other * other)


def _sums(values: Sequence[Any], clusters: Sequence[Hashable]) -> list[tuple[Any, int]]:
    """Sum and number of the values of each cluster, in the order in which they come up."""
    sums: dict[Hashable, tuple[Any, int]] = {}
    for value, cluster in zip(values, clusters, strict=True):
        total, size = sums.get(cluster, (0, 0))
        sums[cluster] = (total + value, size + 1)
    return list(sums.values())


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


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values corrected for their number (Holm 1979, step-down), in the order given.

    The chance of even one false discovery among those at or below .05 is at most 5 %, whatever
    the dependence between the tests.
    """
    largest, corrected = 0.0, [0.0] * len(p_values)
    for rank, index in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        corrected[index] = largest
    return corrected


def non_inferior(difference: Difference, margin: float) -> bool:
    """Whether a loss larger than the margin is excluded.

    The absence of a significant difference does not show this: with few requests nothing is
    significant.

    Args:
        difference: New minus old share of successes, with its two-sided 95 % interval; its lower
            end is the one-sided 97.5 % bound that is customary for non-inferiority.
        margin: Largest loss that does not matter, above 0, as a proportion; fixed beforehand.

    Raises:
        ValueError: The margin is not positive.
    """
    if margin <= 0:
        raise ValueError(f"a non-inferiority margin must be positive, not {margin}")
    return difference.low > -margin


def clustered_difference(
    differences: Sequence[float], clusters: Sequence[Hashable], seed: int = 0
) -> Difference:
    """Mean of paired differences, with an interval that keeps related requests together.

    Questions that occur with several pictures, or harmful and harmless twins, fall and stand
    together, so that n requests hold less than n pieces of evidence. Whole clusters are drawn with
    replacement (cluster bootstrap, BCa; Efron and Tibshirani 1993, chapters 6 and 14). With one
    request a cluster this is the paired bootstrap.

    Args:
        differences: On minus off for each request: -1, 0 or 1, or a difference of scores.
        clusters: What each request belongs to.
        seed: Of the draws.

    Raises:
        ValueError: There are fewer than two clusters, or all clusters say the same, so that
            resampling cannot show any uncertainty; use `paired_change` then.
    """
    return _resampled(_sums(differences, clusters), seed)


def _resampled(clusters: Sequence[tuple[float, int]], seed: int) -> Difference:
    if len(clusters) < _MIN_CLUSTERS or len({total / size for total, size in clusters}) == 1:
        raise ValueError(f"{len(clusters)} clusters without variation cannot be resampled")
    totals, sizes = zip(*clusters, strict=True)

    def ratio(total: Any, size: Any, axis: int = -1) -> Any:
        return total.sum(axis=axis) / size.sum(axis=axis)

    low, high = _interval((totals, sizes), ratio, seed, vectorized=True)
    return Difference(sum(totals) / sum(sizes), low, high)


def resampled(statistic: Callable[[Any], float], n: int, seed: int = 0) -> tuple[float, float]:
    """Percentile bootstrap interval of any statistic of n independent items.

    Args:
        statistic: Its value for an integer array of item indices, which may repeat.
        n: Items, at least 2.
        seed: Of the draws.
    """
    return _interval((range(n),), statistic, seed, vectorized=False)


def _interval(
    data: tuple[Sequence[float], ...], statistic: Any, seed: int, *, vectorized: bool
) -> tuple[float, float]:
    import numpy
    from scipy.stats import bootstrap

    interval = bootstrap(
        tuple(numpy.asarray(values) for values in data),
        statistic,
        paired=True,
        vectorized=vectorized,
        n_resamples=_DRAWS,
        batch=max(1, _AT_ONCE // len(data[0])),
        confidence_level=CONFIDENCE,
        method="BCa" if vectorized else "percentile",
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
