"""Which requests of a suite nearly repeat a prompt of the calibration. Free of torch."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.evaluation.report import Overlap
from mars_export.evaluation.suite import Sample
from mars_export.inputs import prompts
from mars_export.methods.base import ArtefactRecord

__all__ = ["find_prompts", "near_duplicates", "overlap", "texts"]

_THRESHOLD: Final = 0.7
"""Token Jaccard similarity from which two prompts count as near-duplicates."""

_LABELS: Final = ("harmful", "harmless")


def overlap(
    calibration: Iterable[str], evaluation: Iterable[str], threshold: float = _THRESHOLD
) -> Overlap:
    """Count evaluation prompts that have a near-duplicate among the calibration prompts.

    Args:
        calibration: Prompts of the calibration, both splits.
        evaluation: Prompts of the suite; those without a word are left out.
        threshold: Jaccard similarity |A & B| / |A | B| of the word sets, lower case.
    """
    similarities = list(_similarities(tuple(calibration), tuple(evaluation)).values())
    return Overlap(
        n=len(similarities),
        exact=sum(similarity == 1.0 for similarity in similarities),
        near=sum(similarity >= threshold for similarity in similarities),
        threshold=threshold,
    )


def near_duplicates(
    calibration: Iterable[str], samples: Sequence[Sample], threshold: float = _THRESHOLD
) -> frozenset[str]:
    """Ids of the requests whose text nearly repeats a calibration prompt, as `overlap` counts."""
    similarities = _similarities(tuple(calibration), tuple(texts(samples)))
    return frozenset(
        sample.id for sample in samples if similarities.get(sample.words, 0.0) >= threshold
    )


def texts(samples: Iterable[Sample]) -> list[str]:
    """What the samples ask for in words, each text once."""
    return list(dict.fromkeys(sample.words for sample in samples))


@lru_cache(maxsize=1)  # a report asks twice of the same texts
def _similarities(calibration: tuple[str, ...], evaluation: tuple[str, ...]) -> Mapping[str, float]:
    """Of each prompt that has a word, that to the nearest calibration prompt."""
    known = {words for prompt in calibration if (words := _words(prompt))}
    return {
        prompt: 1.0
        if words in known
        else max((_jaccard(words, other) for other in known), default=0.0)
        for prompt in evaluation
        if (words := _words(prompt))
    }


def find_prompts(record: ArtefactRecord, suite: Path | None = None) -> tuple[str, ...]:
    """The prompts that a directory was calibrated on, where they are at hand.

    A steered directory holds their digests only. The packaged prompts are tried, and those of a
    suite that has its own.

    Args:
        record: Of the calibration.
        suite: The suite that is evaluated, if it is a file.

    Returns:
        All prompts of both splits; empty when they are not at hand.
    """
    digests = [record.source.prompts[label].sha256 for label in _LABELS]
    for sets in _candidates(record.source.seed, suite):
        if [sets.harmful.sha256, sets.harmless.sha256] == digests:
            return sets.prompts
    return ()


def _candidates(seed: int, suite: Path | None) -> Iterable[prompts.PromptSets]:
    yield prompts.packaged(seed)
    if suite is not None:
        try:
            yield prompts.from_suite(suite, seed)
        except (ExportError, OSError, json.JSONDecodeError):  # a suite without prompts of its own
            return


def _words(prompt: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", prompt.lower()))


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)
