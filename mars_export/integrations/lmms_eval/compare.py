"""Utility with steering on against off: paired, with a margin that was stated before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from mars_export.common.errors import ExportError
from mars_export.evaluation.aggregate import REFUSED
from mars_export.evaluation.corrections import non_inferior
from mars_export.evaluation.intervals import Difference, paired_difference
from mars_export.evaluation.judges.rules import classify
from mars_export.evaluation.resampling import clustered_difference
from mars_export.evaluation.utility import Metric, TaskUtility
from mars_export.integrations.lmms_eval.log import Logged, read_log

__all__ = ["compare"]


def compare(task: str, off: Path, on: Path, margin: float) -> TaskUtility:
    """Compare the logs of two runs of one task.

    Args:
        task: Name.
        off: Log of the run with steering off.
        on: Of that with steering on.
        margin: Acceptable loss, above 0, as a share of 1 for scores of 0 and 1.

    Raises:
        ExportError: A log cannot be read, or the two are not about the same samples.
    """
    before, after = read_log(off), read_log(on)
    _require_same(before, after, off, on)
    names = list(next(iter(before.values())).scores)
    shared = [n for n in names if all(n in s.scores for s in (*before.values(), *after.values()))]
    return TaskUtility(
        task=task,
        n=len(before),
        metrics=[_metric(name, before, after, margin) for name in shared],
        refused_off=_refused(before),
        refused_on=_refused(after),
    )


def _require_same(
    before: Mapping[int, Logged], after: Mapping[int, Logged], off: Path, on: Path
) -> None:
    if before.keys() != after.keys():
        odd = min(before.keys() ^ after.keys())
        raise ExportError(f"{on} and {off} are not about the same samples: doc_id {odd} is in one")
    for number, sample in before.items():
        if sample.document != after[number].document:
            raise ExportError(f"{on}: doc_id {number} is another document than in {off}")


def _metric(
    name: str, before: Mapping[int, Logged], after: Mapping[int, Logged], margin: float
) -> Metric:
    off = [sample.scores[name] for sample in before.values()]
    on = [after[number].scores[name] for number in before]
    interval = _interval(off, on)
    return Metric(
        name=name,
        n=len(off),
        off=sum(off) / len(off),
        on=sum(on) / len(on),
        difference=(sum(on) - sum(off)) / len(off),
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        margin=margin,
        not_inferior=non_inferior(interval, margin) if interval else None,
    )


def _interval(off: Sequence[float], on: Sequence[float]) -> Difference | None:
    if {*off, *on} <= {0.0, 1.0}:
        cells = [(bool(a), bool(b)) for a, b in zip(off, on, strict=True)]
        order = ((True, True), (True, False), (False, True), (False, False))
        return paired_difference(*(cells.count(cell) for cell in order))
    changes = [b - a for a, b in zip(off, on, strict=True)]
    try:
        return clustered_difference(changes, range(len(changes)))
    except ValueError:  # no variation to resample
        return None


def _refused(samples: Mapping[int, Logged]) -> int:
    return sum(classify(s.prompt, s.response) in REFUSED for s in samples.values())
