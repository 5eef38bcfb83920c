"""Leakage between calibration and evaluation prompts."""

import re
from collections.abc import Iterable
from typing import Final

__all__ = ["THRESHOLD", "overlap"]

THRESHOLD: Final = 0.7
"""Token Jaccard similarity from which two prompts count as near-duplicates."""


def overlap(
    calibration: Iterable[str], evaluation: Iterable[str], threshold: float = THRESHOLD
) -> int:
    """How many evaluation prompts have a near-duplicate among the calibration prompts.

    Args:
        calibration: Prompts that the calibration saw, both splits.
        evaluation: Prompts of the suite.
        threshold: Jaccard similarity |A & B| / |A | B| of the word sets, lower case.

    Returns:
        A count between 0 and the number of evaluation prompts.
    """
    seen = [words for prompt in calibration if (words := _words(prompt))]
    return sum(
        any(_jaccard(words, other) >= threshold for other in seen)
        for prompt in evaluation
        if (words := _words(prompt))
    )


def _words(prompt: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", prompt.lower()))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)
