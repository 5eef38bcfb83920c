"""Where the gate opens: bounds that most harmless requests lie below, with stated confidence.

A3.n are sections of docs/method.md.
"""

from collections.abc import Sequence
from typing import Final

import torch

from mars_export.methods.mars.record import OPEN_LIMIT

__all__ = [
    "CONFIDENCE",
    "confidence",
    "fewest_prompts",
    "largest_of_prompts",
    "surprising",
    "tolerance_bound",
    "upper_bound",
]

CONFIDENCE: Final = 0.95

_ENOUGH: Final = 20
"""Requests from which the largest one may be an outlier, where no promise hangs on it."""


def tolerance_bound(values: torch.Tensor, *, strict: bool) -> torch.Tensor:
    """Order statistic below which 95 % of the population lie, with 95 % confidence.

    Fewer than 59 values cannot give that confidence: the largest is taken then.

    Args:
        values: (..., N), independent draws.
        strict: Whether the confidence must hold. If not, the largest of 20 or more is left out.
    """
    n = values.shape[-1]
    above = _left_out(n)
    if not strict and n >= _ENOUGH:
        above = max(above, 1)
    return values.sort(-1).values[..., n - 1 - above]


def confidence(n: int) -> float:
    """Confidence that at most 5 % of the population lie above the tolerance bound of n draws."""
    return min(CONFIDENCE, 1 - (1 - OPEN_LIMIT) ** n)


def fewest_prompts() -> int:
    """Fewest draws of which the largest is a tolerance bound: 59."""
    return next(n for n in range(1, 1000) if confidence(n) >= CONFIDENCE)


def largest_of_prompts(
    values: Sequence[torch.Tensor], prompts: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """(P,) the largest value of each distinct prompt: what one prompt gives is not independent.

    Args:
        values: Tensors (N_i,).
        prompts: Of each, its N_i prompts.
    """
    largest: dict[int, float] = {}
    for several, numbers in zip(values, prompts, strict=True):
        for value, number in zip(several.tolist(), numbers, strict=True):
            largest[number] = max(value, largest.get(number, value))
    return torch.tensor(list(largest.values()), dtype=torch.float64)


def upper_bound(count: int, n: int) -> float:
    """One-sided upper bound of a share, confidence 95 % (Clopper-Pearson); 1 of no draws."""
    if count >= n:
        return 1.0
    low, high = count / n, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _at_most(count, n, middle) > 1 - CONFIDENCE else (low, middle)
    return high


def surprising(count: int, n: int) -> bool:
    """Whether so many of n draws lie above what 5 % should: a test at 5 %."""
    return count > 0 and 1 - _at_most(count - 1, n, OPEN_LIMIT) < 1 - CONFIDENCE


def _left_out(n: int) -> int:
    """How many of n sorted draws may lie above the tolerance bound; 0 if even none is too many."""
    count = 0
    while _at_most(count, n, OPEN_LIMIT) <= 1 - CONFIDENCE:
        count += 1
    return max(count - 1, 0)


def _at_most(count: int, n: int, share: float) -> float:
    """P(X <= count) of a binomial variable."""
    term = total = (1 - share) ** n
    for k in range(count):
        term *= (n - k) / (k + 1) * share / (1 - share)
        total += term
    return total
