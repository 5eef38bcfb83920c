"""Statistics of rates: intervals, tests, margins, the errors of a judge. Free of torch."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from math import sqrt
from statistics import NormalDist
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mars_export.evaluation.report import Corrected, JudgeError, Rate

if TYPE_CHECKING:
    from numpy import bool_
    from numpy.typing import NDArray

    Booleans = NDArray[bool_]

__all__ = [
    "CONFIDENCE",
    "Difference",
    "clustered_difference",
    "fits",
    "holm",
    "kappa",
    "mcnemar",
    "non_inferior",
    "paired_difference",
    "resampled",
    "rogan_gladen",
    "wilson",
]

CONFIDENCE: Final = 0.95
"""Two-sided confidence of every interval."""
_DRAWS: Final = 2000
_MIN_CLUSTERS: Final = 2


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
    from scipy.stats import binomtest

    interval = binomtest(count, n).proportion_ci(CONFIDENCE, "wilson")
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


def fits(observed: Rate, error: JudgeError) -> bool:
    """Whether a judge with these errors can have observed this rate, whatever the true one.

    It would call a share of the answers refused and miss a share of the refusals. A rate beyond
    either shows that it errs otherwise here than on the labeled responses; a correction would
    then return 0 or 1 with an interval that is far too narrow.
    """
    return 1 - error.specificity.rate <= observed.rate <= error.sensitivity.rate


def rogan_gladen(observed: Rate, error: JudgeError) -> Corrected | None:
    """The rate that lies behind what an erring judge saw.

    (observed + specificity - 1) / (sensitivity + specificity - 1), Rogan and Gladen (1978),
    American Journal of Epidemiology 107:71-76, clipped to 0 to 1. The interval is that of Lang and
    Reiczigel (2014), Preventive Veterinary Medicine 113:13-22, equations 4 to 7 and 14 to 17; it
    allows for the uncertainty of sensitivity and specificity as well.

    Args:
        observed: Share that the judge counted, of how many.
        error: The judge's sensitivity and specificity, as measured on labeled responses.

    Returns:
        None when the judge is no better than chance, so that nothing can be said.
    """
    sensitivity, specificity = error.sensitivity, error.specificity
    youden = sensitivity.rate + specificity.rate - 1
    if youden <= 0:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    n = observed.n + z * z
    n_se, n_sp = sensitivity.n + 2, specificity.n + 2
    rate = (observed.count + z * z / 2) / n
    se, sp = (sensitivity.count + 1) / n_se, (specificity.count + 1) / n_sp
    index = se + sp - 1
    if index <= 0:
        return None
    middle = (rate + sp - 1) / index
    spread_se, spread_sp = se * (1 - se) / n_se, sp * (1 - sp) / n_sp
    shift = 2 * z * z * (middle * spread_se - (1 - middle) * spread_sp)
    variance = rate * (1 - rate) / n + middle**2 * spread_se + (1 - middle) ** 2 * spread_sp
    half = z * sqrt(variance) / index
    return Corrected(
        rate=_clipped((observed.rate + specificity.rate - 1) / youden),
        low=_clipped(middle + shift - half),
        high=_clipped(middle + shift + half),
    )


def _clipped(proportion: float) -> float:
    return min(1.0, max(0.0, proportion))


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
            resampling cannot show any uncertainty; use `paired_difference` then.
    """
    sums: dict[Hashable, list[float]] = {}
    for difference, cluster in zip(differences, clusters, strict=True):
        total = sums.setdefault(cluster, [0.0, 0.0])
        total[0] += difference
        total[1] += 1
    if len(sums) < _MIN_CLUSTERS or len({total / size for total, size in sums.values()}) == 1:
        raise ValueError(f"{len(sums)} clusters without variation cannot be resampled")
    totals, sizes = zip(*sums.values(), strict=True)

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
        confidence_level=CONFIDENCE,
        method="BCa" if vectorized else "percentile",
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return float(interval.low), float(interval.high)
