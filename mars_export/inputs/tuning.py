"""A few labeled requests with media that a calibration may be tuned on. Free of torch.

Half of the topics tune, the other half says what that brought.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import LABELS, Label, Modality
from mars_export.common.words import normalized
from mars_export.inputs.requests import Request

__all__ = ["LEAST", "LabeledRequest", "TuningSet", "divided", "request_digest"]

LEAST: Final = 8
"""Fewest requests of a label and modality; a quarter of them must be in each half."""


@dataclass(frozen=True)
class LabeledRequest:
    """A request that shows something, and whether it is harmful.

    Attributes:
        request: With its media.
        label: Whether it is harmful.
        modality: Of its media; never `text`.
        topic: Requests of one topic stay in one half.
        where: It stands, for messages.
    """

    request: Request
    label: Label
    modality: Modality
    topic: str
    where: str = ""


@dataclass(frozen=True)
class TuningSet:
    """Requests to tune on, and others that say what it brought.

    Attributes:
        name: Of the suite.
        sha256: Of the suite.
        license: Of the requests; empty when it is not known.
        fit: To tune on.
        held_out: Of other topics.
    """

    name: str
    sha256: str
    license: str
    fit: tuple[LabeledRequest, ...]
    held_out: tuple[LabeledRequest, ...]

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Those of its requests."""
        return tuple(self.counts(self.fit))

    @staticmethod
    def counts(requests: Iterable[LabeledRequest]) -> dict[Modality, dict[Label, int]]:
        """How many there are of each modality and label."""
        counts: dict[Modality, dict[Label, int]] = {}
        for labeled in requests:
            of = counts.setdefault(labeled.modality, dict.fromkeys(LABELS, 0))
            of[labeled.label] += 1
        return counts

    def half(self, held_out: bool, modality: Modality, label: Label) -> tuple[Request, ...]:
        """The requests of one half, modality and label."""
        chosen = self.held_out if held_out else self.fit
        return tuple(r.request for r in chosen if (r.modality, r.label) == (modality, label))


def divided(
    name: str, sha256: str, license: str, requests: Sequence[LabeledRequest], seed: int
) -> TuningSet:
    """Split requests into halves, by topic and seeded: a topic goes where its like is rarer.

    Raises:
        ExportError: There are too few of a label, or too few topics to divide them.
    """
    totals = TuningSet.counts(requests)
    for modality, labels in totals.items():
        for label, count in labels.items():
            if count < LEAST:
                raise ExportError(
                    f"--tune-on {name}: it has {count or 'no'} {label} {modality} requests; give "
                    f"at least {LEAST}, better 24, of each label"
                )
    topics: dict[str, list[LabeledRequest]] = {}
    for labeled in requests:
        topics.setdefault(labeled.topic, []).append(labeled)
    order = random.Random(f"{seed}").sample(sorted(topics), len(topics))
    halves: tuple[list[LabeledRequest], list[LabeledRequest]] = ([], [])
    for topic in sorted(order, key=lambda topic: -len(topics[topic])):
        kinds = {(r.modality, r.label) for r in topics[topic]}
        first, second = (sum((r.modality, r.label) in kinds for r in half) for half in halves)
        halves[first > second].extend(topics[topic])
    tuning = TuningSet(name, sha256, license, tuple(halves[0]), tuple(halves[1]))
    for modality in totals:
        for label, count in totals[modality].items():
            fewest = min(len(tuning.half(side, modality, label)) for side in (False, True))
            if fewest < LEAST // 4:
                raise ExportError(
                    f"--tune-on {name}: its {count} {label} {modality} requests are of too few "
                    "topics for two halves; give requests of more topics"
                )
    return tuning


def request_digest(request: Request) -> str:
    """SHA-256 of the words and the media of a request: the same for what is asked twice."""
    whole = hashlib.sha256((normalized(request.prompt) or request.prompt).encode())
    for medium in request.media:
        if medium.modality == "audio":
            whole.update(f"audio {medium.data.rate}".encode() + medium.data.samples.tobytes())
            continue
        frames = medium.data if isinstance(medium.data, tuple | list) else (medium.data,)
        for frame in frames:
            whole.update(f"{medium.modality} {frame.size}".encode() + frame.tobytes())
    return whole.hexdigest()
