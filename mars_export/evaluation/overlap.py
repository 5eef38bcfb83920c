"""Which requests of a suite nearly repeat a prompt of the calibration. Free of torch."""

import json
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.evaluation.report import Overlap
from mars_export.evaluation.suite import Sample
from mars_export.inputs import prompts
from mars_export.methods.base import ArtefactRecord

__all__ = ["find_prompts", "overlap", "texts"]

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
    known = {words for prompt in calibration if (words := _words(prompt))}
    similarities = [
        1.0 if words in known else max((_jaccard(words, other) for other in known), default=0.0)
        for prompt in evaluation
        if (words := _words(prompt))
    ]
    return Overlap(
        n=len(similarities),
        exact=sum(similarity == 1.0 for similarity in similarities),
        near=sum(similarity >= threshold for similarity in similarities),
        threshold=threshold,
    )


def texts(samples: Iterable[Sample]) -> list[str]:
    """What the samples ask for in words, each text once.

    A request whose pictures say what it is after counts as that, in words.
    """
    return list(dict.fromkeys(sample.intent or sample.prompt for sample in samples))


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
