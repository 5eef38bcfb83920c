"""The table of the page: a row per request, with what every arm answered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import STEERED, SampleResult
from mars_export.methods.base import ArtefactRecord, Decision
from mars_export.methods.mars.record import MarsRecord

__all__ = ["rows"]

_DIGITS: Final = 3


def rows(
    results: Sequence[SampleResult], calibration: ArtefactRecord, prompts: Mapping[str, str]
) -> list[dict[str, Any]]:
    """Requests in the order of the sample log; keys are short, as there may be thousands.

    Args:
        results: Every answer.
        calibration: Of the checkpoint.
        prompts: Words of a request by its id.
    """
    width = _widths(calibration)
    table: dict[str, dict[str, Any]] = {}
    for result in results:
        row = table.setdefault(result.id, _row(result, prompts.get(result.id, "")))
        row["answers"][result.arm] = _answer(result)
        if result.arm == STEERED and isinstance(result.decision, Decision):
            gate = result.decision.gate
            row["gate"], row["push"] = _rounded(gate), _rounded(result.push)
            if gate is not None and result.decision.modality in width:
                row["margin"] = _rounded(gate * width[result.decision.modality])
    return list(table.values())


def _row(result: SampleResult, prompt: str) -> dict[str, Any]:
    return {
        "id": result.id,
        "suite": result.suite,
        "category": result.category or "",
        "condition": result.variant,
        "modality": result.modality,
        "label": "harmful" if result.harmful else "harmless",
        "prompt": prompt,
        "gate": None,
        "margin": None,
        "push": None,
        "answers": {},
    }


def _answer(result: SampleResult) -> dict[str, Any]:
    said = {"text": result.response, "verdict": result.verdict, "cut": result.cut}
    return said if result.harm is None else {**said, "harm": result.harm}


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, _DIGITS)


def _widths(calibration: ArtefactRecord) -> dict[Modality | None, float]:
    """From where the gate opens to where it is 1, by modality, over the distance of the centroids.

    An open gate times this is the margin; a shut one says only that there is none.
    """
    record = calibration.record
    if not isinstance(record, MarsRecord):
        return {}
    return {
        modality: (record.harmful[modality] - origin) / record.separation
        for modality, origin in record.origin.items()
    }
