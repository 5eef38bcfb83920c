"""Whether a report says what its sample log holds.

All that follows from the answers is computed again, by the code that wrote the report, and
compared field by field: nothing in it can be altered, emptied or left out.
"""

import hashlib
import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ValidationError

from mars_export.card.arithmetic import ROUNDING
from mars_export.common.errors import ExportError
from mars_export.common.names import SAMPLES_FILE, SAMPLES_NAME
from mars_export.evaluation import aggregate
from mars_export.evaluation.failures import failures
from mars_export.evaluation.judges.quality import agreement, judge_error, no_correction
from mars_export.evaluation.judges.thoughts import answer_of
from mars_export.evaluation.report import (
    REFERENCE,
    Report,
    SampleResult,
    label,
    undecided,
)

__all__ = ["check_samples", "read_samples"]


def read_samples(folder: Path) -> list[SampleResult]:
    """The sample log in the folder of a report; empty where there is none.

    Raises:
        ExportError: if a line of it is not a sample.
    """
    path = folder / SAMPLES_FILE
    if not path.exists():
        return []
    results = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, 1):
            try:
                results.append(SampleResult.model_validate_json(line))
            except ValidationError as error:
                raise ExportError(
                    f"{path}, line {number} is not a sample; evaluate the directory again"
                ) from error
    return results


def check_samples(folder: Path, report: Report, results: Sequence[SampleResult]) -> None:
    """Check that a report is about the sample log beside it, and says what follows from it.

    Raises:
        ExportError: naming the first difference.
    """
    if results and (problem := next(_problems(folder, report, results), None)):
        raise ExportError(f"model card not written: {problem}; evaluate the directory again")


def _problems(folder: Path, report: Report, results: Sequence[SampleResult]) -> Iterator[str]:
    digest = hashlib.sha256((folder / SAMPLES_FILE).read_bytes()).hexdigest()
    if report.samples_sha256 not in ("", digest):
        yield f"the report is about another {SAMPLES_NAME}"
    for result in results:
        if answer_of(result.response) is None and result.verdict not in ("unknown", "degenerate"):
            yield f"of {result.id} a thought was judged, not an answer"
    asked = Counter((r.suite, r.arm) for r in results if not r.variant)
    named = {(s.source.name, arm.name) for s in report.suites for arm in report.arms}
    if missing := sorted(asked.keys() ^ named):
        yield f"the report and {SAMPLES_NAME} differ in the suite and arm {' '.join(missing[0])}"
    else:
        yield from _altered(report, _derived(report, results, asked))


def _derived(
    report: Report, results: Sequence[SampleResult], asked: Mapping[tuple[str, str], int]
) -> dict[str, Any]:
    """All fields of a report that follow from the answers, the suites' names and the overlap."""
    known = judge_error(report.judge)
    plain = aggregate.tested(aggregate.plain(results))
    obstacle = no_correction(report.judge, known, aggregate.cells(plain))
    sources = [
        suite.source.model_copy(update={"samples": asked[suite.source.name, REFERENCE]})
        for suite in report.suites
    ]
    tables = aggregate.tables(results, sources, report.near, None if obstacle else known)
    return {
        **tables,
        "agreement": agreement(report.agreement.judge if report.agreement else "", results),
        "judge_error": known,
        "no_correction": obstacle,
        "no_headline": undecided(tables["cells"]),
        "failures": failures(results),
    }


def _altered(report: Report, derived: Mapping[str, Any]) -> Iterator[str]:
    """Where the report says something else, by the names of the fields."""
    for field, value in derived.items():
        for place, stated, counted in _differences(_bare(getattr(report, field)), _bare(value)):
            yield f"{field}{place} is {stated}, but {SAMPLES_NAME} says {counted}"


def _bare(value: Any) -> Any:
    """Records as dictionaries, as they are on disk."""
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, list):
        return [_bare(item) for item in value]
    return json.loads(json.dumps(value))


def _differences(stated: Any, counted: Any, place: str = "") -> Iterator[tuple[str, str, str]]:
    """Place and both values of everything that differs, the deepest place that can be named."""
    if isinstance(stated, dict) and isinstance(counted, dict) and stated.keys() == counted.keys():
        for key in stated:
            yield from _differences(stated[key], counted[key], f"{place}.{key}")
    elif isinstance(stated, list) and isinstance(counted, list) and len(stated) == len(counted):
        for index, (one, other) in enumerate(zip(stated, counted, strict=True)):
            yield from _differences(one, other, f"{place}, {_name(other, index)}")
    elif not _same(stated, counted):
        yield place, _short(stated), _short(counted)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, float) or isinstance(other, float):
        numbers = [x for x in (one, other) if isinstance(x, int | float)]
        return len(numbers) == 2 and math.isclose(*numbers, rel_tol=0, abs_tol=ROUNDING)
    return bool(one == other)


def _name(item: Any, index: int) -> str:
    """What a message calls an item of a list."""
    if not isinstance(item, dict):
        return f"item {index + 1}"
    modality, harmful = item.get("modality"), item.get("harmful")
    words = [
        item.get("source", {}).get("name"),
        *(item.get(key) for key in ("name", "category", "outcome")),
        label(harmful, modality) if modality and harmful is not None else None,
        item.get("arm"),
    ]
    return " ".join(filter(None, words)) or f"item {index + 1}"


def _short(value: Any) -> str:
    if isinstance(value, list | dict):
        return f"{len(value)} entries"
    return f"{value:g}" if isinstance(value, float) else str(value)
