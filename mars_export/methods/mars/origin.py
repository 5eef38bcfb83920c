"""Where the gate opens: bounds that most harmless requests lie below, with stated confidence.

A3.n are sections of docs/method.md.
"""

import math
from collections.abc import Sequence
from typing import Final

import torch

from mars_export.methods.mars.record import OPEN_LIMIT

__all__ = [
    "CONFIDENCE",
    "confidence",
    "fewest_prompts",
    "one_of_each_prompt",
    "prediction_bound",
    "surprising",
    "tolerance_bound",
    "upper_bound",
]

CONFIDENCE: Final = 0.95


def tolerance_bound(values: torch.Tensor, *, strict: bool) -> torch.Tensor:
    """Order statistic below which 95 % of the population lie, with 95 % confidence.

    Fewer than 59 values cannot give that confidence: the largest is taken then.

    Args:
        values: (..., N), independent draws.
        strict: Whether the confidence must hold. If not, it is the 95 % quantile of the values.
    """
    n = values.shape[-1]
    above = _left_out(n) if strict else int(OPEN_LIMIT * n)
    return values.sort(-1).values[..., n - 1 - above]


def prediction_bound(values: torch.Tensor) -> float:
    """What a further draw lies below with a chance of 95 %, from a few draws.

    It is the larger of their 95 % quantile and the bound for normal ones (Student).

    Args:
        values: (N,), at least two independent draws.
    """
    n = len(values)
    z, nu = 1.645, n - 1
    # The quantile of Student's distribution, from the normal one.
    t = z + (z**3 + z) / (4 * nu) + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * nu**2)
    normal = values.mean() + t * values.std() * math.sqrt(1 + 1 / n)
    return max(float(normal), float(tolerance_bound(values, strict=False)))


def confidence(n: int) -> float:
    """Confidence that at most 5 % of the population lie above the tolerance bound of n draws."""
    return min(CONFIDENCE, 1 - (1 - OPEN_LIMIT) ** n)


def fewest_prompts() -> int:
    """Fewest draws of which the largest is a tolerance bound: 59."""
    return next(n for n in range(1, 1000) if confidence(n) >= CONFIDENCE)


def one_of_each_prompt(
    values: Sequence[torch.Tensor], prompts: Sequence[tuple[int, ...]]
) -> torch.Tensor:
    """(P,) one value of each distinct prompt, from its conditions in turn.

    What one prompt gives is not independent; these are independent draws of a request of any
    condition.

    Args:
        values: Tensors (N_i,), one of each condition.
        prompts: Of each, its N_i prompts.
    """
    every: dict[int, list[float]] = {}
    for several, numbers in zip(values, prompts, strict=True):
        for value, number in zip(several.tolist(), numbers, strict=True):
            every.setdefault(number, []).append(value)
    drawn = [every[number][i % len(every[number])] for i, number in enumerate(sorted(every))]
    return torch.tensor(drawn, dtype=torch.float64)


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
