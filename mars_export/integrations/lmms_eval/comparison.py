"""Per-sample logs of lmms-eval (`--log_samples`, version 0.7), steering on against off: paired.

The margin was stated before. Free of torch.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.names import UTILITY_NAME
from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.judges.rules import classify
from mars_export.evaluation.statistics import (
    Difference,
    clustered_difference,
    non_inferior,
    paired_change,
)
from mars_export.evaluation.utility import MARGIN, Metric, TaskUtility, Utility
from mars_export.inputs.tables import read_table

__all__ = ["Logged", "compare", "find_log", "from_logs", "read_log"]

_OWN: Final = frozenset(
    {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "doc_hash"}
    | {"input", "input_media"}
)
"""What a line holds beside its metrics."""


def from_logs(
    directory: Path,
    tasks: Sequence[str],
    off: Path,
    on: Path,
    margin: float = MARGIN,
    engine: str = "log",
) -> Utility:
    """Compare logs that lmms-eval left in two folders, and write `evaluation/utility.json`.

    Raises:
        ExportError: The directory is not a steered checkpoint, or a log is missing or malformed.
    """
    manifest = Manifest.read(directory)
    utility = Utility(
        steering_sha256=manifest.steering_sha256,
        engine=engine,
        tasks=[compare(task, find_log(off, task), find_log(on, task), margin) for task in tasks],
    )
    write_atomically(directory / UTILITY_NAME, utility.model_dump_json(indent=2) + "\n")
    write_seal(directory, UTILITY_NAME)
    return utility


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
        steps = [int(b) - int(a) for a, b in zip(off, on, strict=True)]
        return paired_change(steps, range(len(steps)))
    changes = [b - a for a, b in zip(off, on, strict=True)]
    try:
        return clustered_difference(changes, range(len(changes)))
    except ValueError:  # no variation to resample
        return None


def _refused(samples: Mapping[int, Logged]) -> int:
    return sum(classify(s.prompt, s.response) in REFUSED for s in samples.values())


class Logged(NamedTuple):
    """One line: one document of a task."""

    document: tuple[str, ...]
    """Digest, prompt and target: the same in the logs of two arms. The digest alone does not tell
    documents apart in every version."""
    prompt: str
    response: str
    scores: dict[str, float]
    """Metrics that are one number for each sample; others are scored over the whole task."""


def find_log(folder: Path, task: str) -> Path:
    """The newest log of a task below a folder that lmms-eval wrote to.

    Raises:
        ExportError: There is none.
    """
    logs = sorted(folder.rglob(f"*_samples_{task}.jsonl"), key=lambda p: (p.name, str(p)))
    if not logs:
        raise ExportError(f"{folder} holds no log of {task}; run lmms-eval with --log_samples")
    return logs[-1]


def read_log(path: Path) -> dict[int, Logged]:
    """Every sample of a log by its `doc_id`.

    Raises:
        ExportError: The file cannot be read, is no such log, or names a sample twice; names the
            line.
    """
    samples: dict[int, Logged] = {}
    for row in read_table(path):
        number, digest = row.get("doc_id"), row.get("doc_hash")
        if not isinstance(number, int) or not isinstance(digest, str):
            raise ExportError(f"{row.where}: no doc_id and doc_hash; is it a log of lmms-eval?")
        if number in samples:
            raise ExportError(f"{row.where}: doc_id {number} was there before; keep one run a file")
        scores = dict(_scores(row.values))
        answer = _text(row.get("filtered_resps"))
        prompt = _text(row.get("input"))
        document = (digest, prompt, str(row.get("target")))
        samples[number] = Logged(document, prompt, answer, scores)
    if not samples:
        raise ExportError(f"{path}: the log is empty; run lmms-eval again")
    return samples


def _scores(values: Mapping[str, Any]) -> Iterator[tuple[str, float]]:
    """A metric is a number, or an object with a number called `score`."""
    for name, value in values.items():
        number = value.get("score") if isinstance(value, Mapping) else value
        if name not in _OWN and isinstance(number, bool | int | float):
            yield name, float(number)


def _text(value: Any) -> str:
    """The first text in whatever nesting."""
    while isinstance(value, list) and value:
        value = value[0]
    return value if isinstance(value, str) else ""
