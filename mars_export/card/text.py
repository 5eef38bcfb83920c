"""How a card writes measured numbers: a rate never appears without its n and interval."""

import math
from collections.abc import Callable
from typing import Any, Final

from mars_export.common.markdown import DASH, minus, unbroken
from mars_export.evaluation.report import Corrected, PairedTest, Rate

__all__ = ["FILTERS", "MINIMUM_N", "change", "flips", "p_text", "proportion", "rate"]

MINIMUM_N: Final = 20
"""Below this many requests a card shows counts only: a percentage would feign precision."""


def rate(value: Rate | None) -> str:
    """`x/n · p % [low, high]`; no event or only events give the bound, not 0 % or 100 %."""
    if value is None:
        return DASH
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


def change(pair: PairedTest, net: int) -> str:
    """Paired difference from the reference in percentage points [low, high].

    Args:
        pair: The test.
        net: Requests gained minus lost; all that is printed of few requests.
    """
    if pair.n < MINIMUM_N:
        return minus(f"{net:+d} of {pair.n}")
    middle, low, high = (_points(x) for x in (pair.difference, pair.low, pair.high))
    return unbroken(f"{middle} [{low}, {high}]")


def flips(gained: int, lost: int) -> str:
    """Requests that gained and lost a property."""
    return minus(f"+{gained}&nbsp;-{lost}")


def p_text(p: float) -> str:
    """A p value to three places, or `< 0.001`."""
    return unbroken("< 0.001") if p < 0.001 else f"{p:.3f}"


def proportion(value: Rate | Corrected | None) -> str:
    """A share from 0 to 1 with its interval; a dash for None."""
    if value is None:
        return DASH
    return unbroken(f"{value.rate:.2f} [{value.low:.2f}, {value.high:.2f}]")


FILTERS: Final[dict[str, Callable[..., Any]]] = {"p_text": p_text, "proportion": proportion}
"""Filters of the card's template beside those of every Markdown template."""


def _points(share: float) -> str:
    rounded = round(100 * share, 1)
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
