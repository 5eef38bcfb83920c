"""`--tune-on SUITE`: labeled requests with media that a calibration is tuned on."""

import random
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import LABELS, Modality
from mars_export.common.words import normalized
from mars_export.evaluation.suite import Sample, Suite
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.families.directory import read_config
from mars_export.inputs.limits import Asked, check_requests, context_of
from mars_export.inputs.requests import Request, modality_of
from mars_export.inputs.tuning import LabeledRequest, TuningSet, divided, request_digest

__all__ = ["MOST", "check_tuning", "require_apart", "tuning_set"]

MOST: Final = 128
"""Requests of a label and modality that are taken of a larger suite."""


def tuning_set(
    suite: str, modalities: Sequence[Modality], seed: int = 0, evaluated: Suite | None = None
) -> TuningSet:
    """The requests of a suite with media, in halves: one to tune on, one to measure.

    Args:
        suite: A name or file, as for `open_suites`.
        modalities: What the model takes.
        seed: Of the split.
        evaluated: What is evaluated; it must ask nothing of this.

    Raises:
        ExportError: It cannot be read, shows nothing that the model takes, has too few requests of
            a label or of too few topics, or asks what is evaluated.
    """
    try:
        opened = open_suites([suite])
    except ExportError as error:
        raise ExportError(str(error).replace("--suite ", "--tune-on ", 1)) from error
    requests = list(_requests(opened, modalities, seed))
    if not requests:
        wanted = " or ".join(m for m in modalities if m != "text") or "what this model takes"
        raise ExportError(
            f"--tune-on {opened.name}: it has no request with {wanted}; give a suite that has"
        )
    tuning = divided(opened.name, opened.sha256, opened.license, requests, seed)
    if evaluated is not None:
        require_apart(tuning, evaluated)
    return tuning


def require_apart(tuning: TuningSet, evaluated: Suite) -> None:
    """Refuse to tune on what is evaluated: the same words about the same media.

    Raises:
        ExportError: Some requests are the same.
    """
    requests = (*tuning.fit, *tuning.held_out)
    own = {request_digest(labeled.request) for labeled in requests}
    words = {normalized(labeled.request.prompt) for labeled in requests}
    alike = (s for s in evaluated.samples if s.media and normalized(s.prompt) in words)
    same = [s.id for s in alike if request_digest(evaluated.request(s)) in own]
    if same:
        raise ExportError(
            f"--tune-on {tuning.name}: {len(same)} of its {len(requests)} requests are those of "
            f"the evaluation, for example {same[0]!r} of {evaluated.name}; tune on others, or "
            "evaluate on another --suite"
        )


def check_tuning(processor: Any, base: Path, tuning: TuningSet) -> None:
    """Refuse requests that a model cannot be asked, before it is loaded.

    Raises:
        ExportError: There are some; names them.
    """
    asked = [
        Asked(labeled.where, labeled.request.prompt, partial(_itself, labeled.request))
        for labeled in (*tuning.fit, *tuning.held_out)
    ]
    check_requests(processor, context_of(read_config(base)), asked)


def _itself(request: Request) -> Request:
    return request


def _requests(suite: Suite, modalities: Sequence[Modality], seed: int) -> Iterator[LabeledRequest]:
    """Those that show something, in file order; a seeded part of a large suite."""
    groups: dict[tuple[Modality, bool], list[Sample]] = {}
    for sample in suite.samples:
        if sample.media and not sample.advice and set(sample.types) <= set(modalities):
            key = modality_of(sample.types, modalities), sample.harmful
            groups.setdefault(key, []).append(sample)
    for (modality, harmful), samples in groups.items():
        if len(samples) > MOST:
            samples = random.Random(f"{seed}").sample(samples, MOST)
        for sample in samples:
            where = suite.places.get(sample.id, f"{suite.name}, request {sample.id}")
            label = LABELS[not harmful]
            yield LabeledRequest(suite.request(sample), label, modality, sample.kin, where)
