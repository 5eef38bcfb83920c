"""How much of a suite the calibration has already seen. Free of torch."""

import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.evaluation.report import Overlap
from mars_export.evaluation.suite import Sample
from mars_export.inputs import prompts
from mars_export.inputs.overlap import THRESHOLD, leak
from mars_export.methods.base import ArtefactRecord

__all__ = ["find_prompts", "overlap"]

_LABELS: Final = ("harmful", "harmless")


def overlap(calibration: Sequence[str], samples: Iterable[Sample]) -> Overlap | None:
    """Overlap of calibration prompts and requests, each text once; None without prompts.

    A request whose pictures say what it is after is compared by that, in words.
    """
    if not calibration:
        return None
    texts = dict.fromkeys(sample.intent or sample.prompt for sample in samples)
    found = leak(calibration, texts)
    return Overlap(n=found.n, exact=found.exact, near=found.near, threshold=THRESHOLD)


def find_prompts(record: ArtefactRecord, suite: Path | None) -> tuple[str, ...]:
    """The prompts that a directory was calibrated on, as far as they can be found again.

    A steered directory holds their digests only. The packaged ones are at hand, and so are those
    of a suite that brought its own.

    Args:
        record: Of the calibration.
        suite: The suite that is evaluated, if it is a file.

    Returns:
        All prompts of both splits; empty when they are not at hand.
    """
    wanted = [record.source.prompts[label].sha256 for label in _LABELS]
    for sets in _candidates(record.source.seed, suite):
        if [sets.harmful.sha256, sets.harmless.sha256] == wanted:
            return sets.prompts
    return ()


def _candidates(seed: int, suite: Path | None) -> Iterable[prompts.PromptSets]:
    yield prompts.packaged(seed)
    if suite is not None:
        try:
            yield prompts.from_suite(suite, seed)
        except (ExportError, OSError, json.JSONDecodeError):  # a suite without prompts of its own
            return
