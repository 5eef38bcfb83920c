"""What the errors of a judge make of the rates that it counts. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import exp, fsum, log
from statistics import NormalDist
from typing import Any, Final

from mars_export.evaluation.report import Corrected, JudgeError, Rate
from mars_export.evaluation.statistics import TAIL, clopper_pearson

__all__ = ["fits", "rate_elsewhere", "rogan_gladen"]

_DRAWS: Final = 2000
_LEAST: Final = -5.0
"""Logarithm of the least evidence that a rate can hold, in requests."""
_LEAST_GROUPS: Final = 2


def fits(observed: Rate, error: JudgeError) -> bool:
    """Whether a judge with these errors can have observed this rate, whatever the true one.

    It would call a share of the answers refused and miss a share of the refusals. Only where the
    95 % intervals exclude each other is it shown that the judge errs otherwise here than on the
    labeled responses; a correction would then return 0 or 1 with an interval far too narrow.
    """
    return observed.high >= 1 - error.specificity.high and observed.low <= error.sensitivity.high


def rate_elsewhere(tables: Sequence[tuple[int, int]]) -> Rate:
    """A rate in one more group, of which nothing was measured, from several that were.

    A judge that was measured on the responses of m models is used on those of another. How far its
    rate may lie there is told by how far the rates of the m models lie apart: with their standard
    deviation s, a prediction interval is as wide as t(m - 1) s sqrt(1 + 1/m) (random effects;
    Higgins, Thompson and Spiegelhalter 2009, Journal of the Royal Statistical Society A
    172:137-159, section 4.1). The interval is Clopper and Pearson's for the number of independent
    responses that would vary as much (Korn and Graubard 1998), so that it stays within 0 and 1.

    Args:
        tables: Events and trials of each group, at least two groups.

    Returns:
        All events and trials, with the groups as its clusters.

    Raises:
        ValueError: There are fewer than two groups.
    """
    from scipy.stats import t

    m = len(tables)
    if m < _LEAST_GROUPS:
        raise ValueError(f"{m} groups do not show how groups differ")
    count, n = (sum(column) for column in zip(*tables, strict=True))
    shares = [(k + 1) / (size + 2) for k, size in tables]  # no group is certain
    mean = fsum(shares) / m
    chance = fsum(p * (1 - p) / size for p, (_, size) in zip(shares, tables, strict=True))
    between = max(fsum((share - mean) ** 2 for share in shares) / (m - 1), chance / m)
    spread = between * (1 + 1 / m) + (mean - count / n) ** 2
    ratio = NormalDist().inv_cdf(TAIL) / float(t.ppf(TAIL, m - 1))
    independent = min(float(n), mean * (1 - mean) / spread * ratio**2)
    value, low, high = clopper_pearson(count / n, independent, independent, TAIL)
    return Rate(count=count, n=n, clusters=m, rate=value, low=low, high=high)


def rogan_gladen(observed: Rate, error: JudgeError) -> Corrected | None:
    """The rate that lies behind what an erring judge saw.

    (observed + specificity - 1) / (sensitivity + specificity - 1), Rogan and Gladen (1978),
    American Journal of Epidemiology 107:71-76, clipped to 0 to 1. For the interval all three rates
    are drawn from what is known of them (beta distributions with Jeffreys' prior), so that it
    allows for the uncertainty of the judge as well, however large. Flor et al. (2020), BMC Public
    Health 20:1135, find that of such intervals the Bayesian ones and those of Lang and Reiczigel
    (2014), Preventive Veterinary Medicine 113:13-22, cover as they should. Where a draw has a
    judge no better than chance, any rate may lie behind it. Requests count as so many as their
    interval is that of, clusters allowed for.

    Args:
        observed: Share that the judge counted, of how many.
        error: The judge's sensitivity and specificity, as measured on labeled responses.

    Returns:
        None when the judge is no better than chance, so that nothing can be said.
    """
    import numpy

    sensitivity, specificity = error.sensitivity, error.specificity
    youden = sensitivity.rate + specificity.rate - 1
    if youden <= 0:
        return None
    seen = _drawn(observed.rate, _independent(observed), 0)
    se = _drawn(sensitivity.rate, _independent(sensitivity), 1)
    sp = _drawn(specificity.rate, _independent(specificity), 2)
    known = se + sp > 1
    with numpy.errstate(divide="ignore", invalid="ignore"):
        rates = numpy.clip((seen + sp - 1) / (se + sp - 1), 0, 1)
    rate = _clipped((observed.rate + specificity.rate - 1) / youden)
    low = float(numpy.quantile(numpy.where(known, rates, 0), 1 - TAIL))
    high = float(numpy.quantile(numpy.where(known, rates, 1), TAIL))
    return Corrected(rate=rate, low=min(low, rate), high=max(high, rate))


@lru_cache(maxsize=1024)
def _drawn(rate: float, n: float, seed: int) -> Any:
    """(draws,) of the rate that lies behind `rate` of n trials."""
    import numpy

    generator = numpy.random.default_rng(seed)
    return generator.beta(n * rate + 0.5, n * (1 - rate) + 0.5, _DRAWS)


def _independent(rate: Rate) -> float:
    """Of how many independent trials the interval of a rate is the exact one."""
    if rate.clusters == rate.n:
        return float(rate.n)
    from scipy.optimize import brentq

    def excess(exponent: float) -> float:
        n = exp(exponent)
        _, low, high = clopper_pearson(rate.rate, n, n, TAIL)
        return high - low - (rate.high - rate.low)

    most = log(rate.n)
    if excess(most) >= 0:
        return float(rate.n)
    return exp(float(brentq(excess, _LEAST, most))) if excess(_LEAST) > 0 else exp(_LEAST)


def _clipped(proportion: float) -> float:
    return min(1.0, max(0.0, proportion))
