"""How a card writes measured numbers, so that none can appear without its n and interval."""

import math
import re
from typing import Final

from scipy.stats import binomtest

from mars_export.evaluation.report import Pair, Rate

__all__ = ["MINIMUM_N", "RATE", "change", "minus", "p_text", "rate", "unbroken", "wilson"]

MINIMUM_N: Final = 20
"""Below this many requests a card shows counts only: a percentage would feign precision."""

RATE: Final = re.compile(
    r"(?P<count>\d+)/(?P<n>\d+) · "
    r"(?:at\s(?:most|least)\s[\d.]+\s%|(?P<percent>[\d.]+)\s%\s\[[\d.]+,\s[\d.]+\])"
)
"""The only form in which a card may write a rate: what `rate` returns for n >= MINIMUM_N."""


def wilson(count: int, n: int) -> Rate:
    """Rate of `count` of `n` with its Wilson 95 % score interval (Wilson 1927), proportions 0 to 1.

    Raises:
        ValueError: if n is 0 or count is not between 0 and n.
    """
    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Rate(count=count, n=n, rate=count / n, low=interval.low, high=interval.high)


def rate(value: Rate) -> str:
    """`x/n · p % [low, high]`; no event or only events give the bound, not 0 % or 100 %."""
    head = f"{value.count}/{value.n}"
    if value.n < MINIMUM_N:
        return head
    digits = _digits(value.n)
    low, high = _floor(100 * value.low, digits), _ceil(100 * value.high, digits)
    if value.count == 0:
        return f"{head} · " + unbroken(f"at most {high:.{digits}f} %")
    if value.count == value.n:
        return f"{head} · " + unbroken(f"at least {low:.{digits}f} %")
    interval = f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{head} · " + unbroken(f"{100 * value.rate:.{digits}f} % {interval}")


def change(pair: Pair) -> str:
    """Paired difference of the refusal rates, on minus off, in percentage points [low, high]."""
    if pair.n < MINIMUM_N:
        return minus(f"{pair.newly_refused - pair.newly_answered:+d} of {pair.n}")
    middle, low, high = (_points(x) for x in (pair.difference, pair.low, pair.high))
    return unbroken(f"{middle} [{low}, {high}]")


def minus(text: str) -> str:
    """The same with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def p_text(p: float) -> str:
    """A p value to three places, or `< 0.001`."""
    return unbroken("< 0.001") if p < 0.001 else f"{p:.3f}"


def unbroken(text: str) -> str:
    """The same with no-break spaces, so that a narrow table column cannot tear a number apart."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")


def _points(proportion: float) -> str:
    rounded = round(100 * proportion, 1)
    return minus(f"{rounded:+.1f}") if rounded else "0.0"


def _digits(n: int) -> int:
    """Decimals that keep one event of n from rounding to 0 %."""
    return max(1, math.ceil(math.log10(n)) - 2)


def _floor(x: float, digits: int) -> float:
    """Round an interval's edge outwards; 1e-9 forgives binary fractions such as 98.30000000001."""
    edge: float = math.floor(x * 10**digits + 1e-9) / 10**digits
    return max(0.0, edge)


def _ceil(x: float, digits: int) -> float:
    edge: float = math.ceil(x * 10**digits - 1e-9) / 10**digits
    return min(100.0, edge)
