"""How a card writes measured numbers: a rate never appears without its n and interval."""

import math
from collections.abc import Callable, Sequence
from typing import Any, Final

from mars_export.card.outcomes import outcome_of
from mars_export.common.markdown import DASH, cell, code, minus, unbroken
from mars_export.common.vocabulary import REFUSED, Harm, Verdict
from mars_export.evaluation.changes import ENOUGH
from mars_export.evaluation.report import (
    Beginning,
    Corrected,
    Failure,
    PairedTest,
    Rate,
    label,
)

__all__ = [
    "FEW",
    "FILTERS",
    "MINIMUM_N",
    "change",
    "enumerated",
    "failure",
    "flips",
    "harm_bound",
    "harm_word",
    "p_text",
    "proportion",
    "rate",
    "times",
    "worst_end",
]

_KINDS: Final[dict[Verdict, str]] = {
    "refusal": "a refusal",
    "rebuttal": "a refusal",
    "answer": "an answer",
    "degenerate": "empty or looping output",
    "unknown": "what the judge could not name",
}

_BEGINNINGS: Final[dict[Beginning, str]] = {
    "agreement": "by agreeing",
    "no": "by declining or with an apology",
    "caution": "with a caution",
    "list": "with a list or steps",
    "matter": "with the matter itself",
    "nothing": "with nothing",
}
_HARMS: Final[dict[Harm, str]] = {
    "harmful": "harmful", "harmless": "harmless", "unknown": "neither harmful nor harmless",
}  # fmt: skip

MINIMUM_N: Final = 20
"""Below this many requests a card shows counts only: a percentage would feign precision."""

FEW: Final = "too few topics"
"""A comparison in which harm could not be shown whatever happened."""


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
        return f"{head} · at most " + unbroken(f"{high:.{digits}f} %")
    if value.count == value.n:
        return f"{head} · at least " + unbroken(f"{low:.{digits}f} %")
    middle, interval = f"{100 * value.rate:.{digits}f} %", f"[{low:.{digits}f}, {high:.{digits}f}]"
    return f"{head} · {unbroken(middle)} {unbroken(interval)}"


def change(pair: PairedTest, net: int) -> str:
    """Paired difference from the reference in percentage points [low, high].

    Args:
        pair: The test.
        net: Requests gained minus lost; all that is printed of few requests.
    """
    if pair.n < MINIMUM_N:
        return minus(f"{net:+d} of {pair.n}")
    middle, low, high = (_points(x) for x in (pair.difference, pair.low, pair.high))
    return f"{middle} {unbroken(f'[{low}, {high}]')}"


def worst_end(pair: PairedTest) -> float:
    """The end of the interval where the arm does most harm, as a rise of harm (proportion)."""
    return pair.harm_ends[1]


def harm_bound(pair: PairedTest) -> str:
    """That end in percentage points, rounded outwards; counts stand for few requests."""
    return f"{_ceil(100 * worst_end(pair), 1):.1f}"


def harm_word(test: PairedTest) -> str:
    """What a comparison says about harm, for a table.

    With fewer than `ENOUGH` topics harm cannot be ruled out, even where nothing changes; so that
    it was not is no news.
    """
    if test.harm == "shown":
        return f"**shown**, p\N{NO-BREAK SPACE}{p_text(test.p_harm)}"
    if outcome_of(test) == "refused" and getattr(test, "at_risk", None) == 0:
        return "nothing to lose"
    if test.harm == "ruled out":
        return "ruled out"
    if not test.testable:
        return FEW
    return "not ruled out" if test.clusters >= ENOUGH else "not shown"


def enumerated(names: Sequence[str], most: int) -> str:
    """The first names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def failure(item: Failure) -> str:
    """An answer that went wrong, told in the card's own words."""
    changed = (item.reference in REFUSED) is item.harmful
    kinds = {
        (True, True): "no longer refused", (True, False): "still answered",
        (False, True): "newly refused", (False, False): "still refused",
    }  # fmt: skip
    about = item.topic or item.category
    topic = f" about {cell(about)}" if about else ""
    way = f", put through {code(item.variant)}" if item.variant else ""
    judged = f", judged {_HARMS[item.harm]}" if item.harm and item.harmful else ""
    return (
        f"**{label(item.harmful, item.modality).capitalize()} request{topic}, "
        f"{kinds[item.harmful, changed]}** ({code(item.id)}{way}): "
        f"{_KINDS[item.reference]} with steering off, {_KINDS[item.verdict]} with steering on"
        f"{', which left it alone' if item.active is False else ''}; it begins "
        f"{_BEGINNINGS[item.beginning]}{' and is cut at the token limit' if item.cut else ''}"
        f"{judged}."
    )


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


def times(ratio: float) -> str:
    """A ratio of costs."""
    return f"{ratio:.2f} times"


FILTERS: Final[dict[str, Callable[..., Any]]] = {
    "failure": failure,
    "p_text": p_text,
    "proportion": proportion,
    "rate": rate,
    "times": times,
}
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
