"""The per-sample log of lmms-eval (`--log_samples`, version 0.7). Free of torch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.evaluation.suites.tables import read_table

__all__ = ["Logged", "find_log", "read_log"]

_OWN: Final = frozenset(
    {"doc_id", "doc", "target", "arguments", "resps", "filtered_resps", "token_counts", "doc_hash"}
    | {"input", "input_media"}
)
"""What a line holds beside its metrics."""


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
    found = sorted(folder.rglob(f"*_samples_{task}.jsonl"), key=lambda p: (p.name, str(p)))
    if not found:
        raise ExportError(f"{folder} holds no log of {task}; run lmms-eval with --log_samples")
    return found[-1]


def read_log(path: Path) -> dict[int, Logged]:
    """Every sample of a log by its `doc_id`.

    Raises:
        ExportError: The file cannot be read, is no such log, or names a sample twice; names the
            line.
    """
    found: dict[int, Logged] = {}
    for row in read_table(path):
        number, digest = row.get("doc_id"), row.get("doc_hash")
        if not isinstance(number, int) or not isinstance(digest, str):
            raise ExportError(f"{row.where}: no doc_id and doc_hash; is it a log of lmms-eval?")
        if number in found:
            raise ExportError(f"{row.where}: doc_id {number} was there before; keep one run a file")
        scores = dict(_scores(row.values))
        answer = _text(row.get("filtered_resps"))
        prompt = _text(row.get("input"))
        document = (digest, prompt, str(row.get("target")))
        found[number] = Logged(document, prompt, answer, scores)
    if not found:
        raise ExportError(f"{path}: the log is empty; run lmms-eval again")
    return found


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
