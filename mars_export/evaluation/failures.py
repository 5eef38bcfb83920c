"""A few answers of the checkpoint that went wrong, told without their words. Free of torch."""

import re
from collections.abc import Sequence
from itertools import islice
from typing import Final

from mars_export.evaluation.changes import (
    against_reference,
    cluster_of,
    group_by,
    is_advice,
    is_refused,
    request_of,
)
from mars_export.evaluation.judges.thoughts import answer_of
from mars_export.evaluation.report import STEERED, Beginning, Failure, SampleResult

__all__ = ["failures"]

_MOST: Final = 3
_TOPIC_WORDS: Final = 4
"""A cluster with a longer name is called by a request, not by a topic."""
_DIGEST: Final = re.compile(r"[0-9a-f]{16}")
"""Cluster of a request that belongs to none (`Sample.kin`)."""

_BEGINNINGS: Final[dict[Beginning, re.Pattern[str]]] = {
    "agreement": re.compile(
        r"(?:sure|certainly|of course|absolutely|yes|ok(?:ay)?|here(?:'s| is| are)|great)\b",
        re.IGNORECASE,
    ),
    "no": re.compile(
        r"(?:i'?m |i am )?(?:sorry|afraid)|i (?:can|wo)n?'?t|i (?:cannot|apologi)|unfortunately|"
        r"apologies|no\b",
        re.IGNORECASE,
    ),
    "caution": re.compile(
        r"warning|caution|disclaimer|important|(?:please )?note|as an? |remember", re.IGNORECASE
    ),
    "list": re.compile(r"\d+[.):]|step\b|[-*•] ", re.IGNORECASE),
}
_MARKUP: Final = "#*_`> \n\t\"'"


def failures(results: Sequence[SampleResult]) -> list[Failure]:
    """One failure of each kind and topic, the worst first.

    Harm done by steering comes before harm that it leaves, requests as they are before variants,
    harmful requests before harmless ones. Harmful requests for advice are left out.
    """
    wrong = [
        (off, on)
        for off, on in against_reference(results)
        if on.arm == STEERED and is_refused(on) is not on.harmful and not is_advice(on)
    ]
    kinds = group_by(
        wrong,
        lambda both: (
            is_refused(both[0]) is both[1].harmful,
            not both[1].variant,
            both[1].harmful,
        ),
    )
    chosen: dict[str, Failure] = {}
    for kind in sorted(kinds, reverse=True):
        fresh = ((off, on) for off, on in kinds[kind] if cluster_of(on) not in chosen)
        if (first := next(fresh, None)) is not None:
            chosen[cluster_of(first[1])] = _failure(*first)
    return list(islice(chosen.values(), _MOST))


def _failure(off: SampleResult, on: SampleResult) -> Failure:
    return Failure(
        id=request_of(on),
        modality=on.modality,
        harmful=on.harmful,
        variant=on.variant,
        topic=_topic(on.cluster),
        category=on.category,
        reference=off.verdict,
        verdict=on.verdict,
        harm=on.harm,
        beginning=_beginning(on.response),
        cut=on.cut,
        active=on.told.active if on.told else None,
    )


def _topic(cluster: str) -> str | None:
    """The name of a cluster; none of a digest, or of one that is named by a whole request."""
    words = cluster.split()
    return cluster if 0 < len(words) <= _TOPIC_WORDS and not _DIGEST.fullmatch(cluster) else None


def _beginning(response: str) -> Beginning:
    """How an answer begins, whatever it says."""
    text = answer_of(response) or ""
    if not text.strip(_MARKUP):
        return "nothing"
    if _BEGINNINGS["list"].match(text.lstrip()):
        return "list"
    opening = text.lstrip(_MARKUP).replace("\u2019", "'")
    return next((name for name, words in _BEGINNINGS.items() if words.match(opening)), "matter")
