"""Is what a server answers steered? Recorded answers of the same checkpoint tell.

Over an API nothing is seen of gates and pushes. But an evaluation with Transformers has recorded
what the checkpoint answers with steering off and on. Where the two differ, the answer of a server
agrees with one of them longer than with the other, and so says which of the two it is. Rounding
may change the end of a greedy answer; it does not turn one into the other. Free of torch.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import takewhile
from pathlib import Path
from typing import Final, NamedTuple

from pydantic import ValidationError

from mars_export.common.names import REPORT_FILE, SAMPLES_FILE
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.evaluation.changes import is_refused
from mars_export.evaluation.report import REFERENCE, STEERED, Report, SampleResult, SelfCheck
from mars_export.evaluation.suite import Sample, Suite
from mars_export.inputs.requests import Request

__all__ = ["FEWEST", "Evidence", "Witness", "judged", "recorded"]

FEWEST: Final = 3
"""Requests without which nothing is shown."""
_MOST: Final = 8
"""Requests of each modality that are asked."""
_SHARE: Final = 0.9
"""Of the answers of an arm, at least, must be its own."""
_OTHERWISE: Final = {
    REFERENCE: "Without steering the engine already answers otherwise than Transformers, so its "
    "steering cannot be judged by answers: evaluate with --engine transformers.",
    STEERED: "It does not steer as this checkpoint does: serve this very directory, or evaluate "
    "with --engine transformers.",
}
"""What it means that the answers of an arm are others, and what to do."""


class Witness(NamedTuple):
    """A request whose answers with steering off and on differ."""

    id: str
    request: Request
    answers: Mapping[str, str]
    """By arm, `off` and `on`, as Transformers gave them."""


class Evidence(NamedTuple):
    """What a server can be compared with."""

    witnesses: Sequence[Witness]
    max_new_tokens: int
    """Of the recorded answers."""


def recorded(folder: Path, steering_sha256: str, suite: Suite) -> Evidence | None:
    """The evidence in the folder of a report; None where it holds none.

    Those come first whose answers are a refusal in one arm alone, of every modality alike.

    Args:
        folder: With a report and all its answers.
        steering_sha256: Of the checkpoint: of another one nothing is taken.
        suite: What was asked.
    """
    try:
        report = Report.model_validate_json((folder / REPORT_FILE).read_bytes())
        lines = (folder / SAMPLES_FILE).read_bytes()
        results = [SampleResult.model_validate_json(line) for line in lines.splitlines()]
    except (OSError, ValidationError):
        return None
    fits = report.engine.name == "transformers" and report.steering_sha256 == steering_sha256
    whole = hashlib.sha256(lines).hexdigest() == report.samples_sha256
    if not (fits and whole and report.self_check.active and report.suite.sha256 == suite.sha256):
        return None
    pairs = _pairs(results)
    samples = {sample.id: sample for sample in suite.samples}
    chosen = [samples[name] for name in _chosen(pairs) if name in samples]
    witnesses = [_witness(suite, sample, pairs[sample.id]) for sample in chosen]
    return Evidence(witnesses, int(report.decoding["max_new_tokens"])) if witnesses else None


def _pairs(results: Iterable[SampleResult]) -> dict[str, dict[str, SampleResult]]:
    """Of requests as they are, the results off and on that differ, by id."""
    pairs: dict[str, dict[str, SampleResult]] = {}
    for result in results:
        if not result.variant and result.arm in (REFERENCE, STEERED):
            pairs.setdefault(result.id, {})[result.arm] = result
    return {
        name: pair
        for name, pair in pairs.items()
        if len(pair) == 2 and pair[REFERENCE].response != pair[STEERED].response
    }


def _chosen(pairs: Mapping[str, Mapping[str, SampleResult]]) -> list[str]:
    ids: list[str] = []
    for modality in MODALITIES:
        kind = [name for name, pair in pairs.items() if pair[STEERED].modality == modality]
        kind.sort(key=lambda name: len({is_refused(r) for r in pairs[name].values()}) == 1)
        ids += kind[:_MOST]
    return ids


def _witness(suite: Suite, sample: Sample, pair: Mapping[str, SampleResult]) -> Witness:
    answers = {arm: result.response for arm, result in pair.items()}
    return Witness(sample.id, suite.request(sample), answers)


def judged(evidence: Evidence, said: Mapping[str, Sequence[str]]) -> SelfCheck:
    """Whether the answers off are those without steering, and those on those with it.

    Args:
        evidence: What was asked.
        said: By arm, the answers of the server in the order of the witnesses.
    """
    count = len(evidence.witnesses)
    if count < FEWEST:
        return SelfCheck(
            active=False,
            detail=f"Recorded requests that tell on from off: {count}, of {FEWEST} at least.",
        )
    own = {arm: _own(evidence, arm, texts) for arm, texts in said.items()}
    counts = ", ".join(f"{own[arm]} of {count} with steering {arm}" for arm in own)
    kinds = Counter[Modality](witness.request.modality for witness in evidence.witnesses)
    asked = ", ".join(f"{n} {modality}" for modality, n in kinds.items())
    detail = f"{count} recorded requests ({asked}) were asked again; as recorded: {counts}."
    other = [arm for arm, n in own.items() if n < _SHARE * count]
    advice = " " + _OTHERWISE[REFERENCE if REFERENCE in other else STEERED] if other else ""
    return SelfCheck(active=not other, detail=detail + advice)


def _own(evidence: Evidence, arm: str, texts: Sequence[str]) -> int:
    """How many answers agree longer with those of this arm than with those of the other."""
    return sum(
        _is_own(text, arm, witness.answers)
        for witness, text in zip(evidence.witnesses, texts, strict=True)
    )


def _is_own(text: str, arm: str, answers: Mapping[str, str]) -> bool:
    own, other = (answers[arm], answers[STEERED if arm == REFERENCE else REFERENCE])
    if text in (own, other):
        return text == own
    return _agree(text, own) > _agree(text, other)


def _agree(one: str, other: str) -> int:
    """Characters from the beginning that two texts share."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return sum(1 for _ in pairs)
