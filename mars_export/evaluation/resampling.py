"""Intervals by resampling, for what has no formula: clustered differences, kappa. Free of torch."""

from collections.abc import Callable, Hashable, Sequence
from typing import Any, Final

from mars_export.evaluation.intervals import CONFIDENCE, Difference

__all__ = ["clustered_difference", "resampled"]

_DRAWS: Final = 2000
_MIN_CLUSTERS: Final = 2


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
            resampling cannot show any uncertainty; use `statistics.paired_difference` then.
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

    found = bootstrap(
        tuple(numpy.asarray(values) for values in data),
        statistic,
        paired=True,
        vectorized=vectorized,
        n_resamples=_DRAWS,
        confidence_level=CONFIDENCE,
        method="BCa" if vectorized else "percentile",
        rng=numpy.random.default_rng(seed),
    ).confidence_interval
    return float(found.low), float(found.high)
