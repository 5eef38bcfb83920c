"""A folder of pictures as a suite: the layout that the Hub calls an image folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from pydantic import ValidationError

from mars_export.common.errors import ExportError
from mars_export.common.record import first_problem
from mars_export.evaluation.suite import SUITE_NAME, MediaFiles, Sample, Suite, read_suite, suite_of
from mars_export.evaluation.suites.tables import Row, read_table

__all__ = ["read_folder"]

_TABLES: Final = ("metadata.csv", "metadata.jsonl")
_REQUIRED: Final = ("file_name", "prompt", "harmful")
_LABELS: Final = {"true": True, "1": True, "false": False, "0": False}


def read_folder(folder: Path, name: str | None = None) -> Suite:
    """A folder with `suite.jsonl`, or pictures with `metadata.csv` or `metadata.jsonl`.

    The table has the columns `file_name` (relative to the folder), `prompt` and `harmful` (true or
    false), and may have `id` and `category`.

    Args:
        folder: The user's.
        name: For the report; None for the folder's.

    Raises:
        ExportError: There is no table, or a row is malformed; names file and line.
    """
    if (folder / SUITE_NAME).is_file():
        return read_suite(folder / SUITE_NAME, name)
    table = next((folder / t for t in _TABLES if (folder / t).is_file()), None)
    if table is None:
        raise ExportError(
            f"{folder}: a suite's folder holds {SUITE_NAME} or {' or '.join(_TABLES)}"
        )
    title = name or folder.resolve().name
    return suite_of(table, ((_sample(row, title), row.where) for row in read_table(table)), title)


def _sample(row: Row, suite: str) -> Sample:
    missing = [column for column in _REQUIRED if row.get(column) in (None, "")]
    if missing:
        raise ExportError(f"{row.where}: {missing[0]} is missing; it needs {', '.join(_REQUIRED)}")
    file, label = str(row.get("file_name")), _LABELS.get(str(row.get("harmful")).lower())
    if label is None:
        raise ExportError(f"{row.where}: harmful is {row.get('harmful')!r}; write true or false")
    try:
        return Sample(
            id=str(row.get("id") or file),
            modality="image",
            harmful=label,
            split="evaluation",
            prompt=str(row.get("prompt")),
            media=[MediaFiles(type="image", path=file)],
            category=_text(row.get("category")),
            suite=suite,
        )
    except ValidationError as error:
        raise ExportError(f"{row.where}: {first_problem(error)}; correct the record") from error


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
