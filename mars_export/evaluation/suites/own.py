"""A folder of pictures as a suite: the layout that the Hub calls an image folder."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import ValidationError

from mars_export.common.errors import ExportError
from mars_export.evaluation.suite import SUITE_NAME, MediaFiles, Sample, Suite, read_suite, unique
from mars_export.evaluation.suites.media import open_picture
from mars_export.evaluation.suites.tables import Row, read_table

if TYPE_CHECKING:
    from PIL.Image import Image

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
    rows = read_table(table)
    if not rows:
        raise ExportError(f"{table}: the suite is empty; write one record for each picture")
    samples = unique((_sample(row, folder, title), row.where) for row in rows)
    whole = hashlib.sha256(table.read_bytes())
    for sample in samples:
        whole.update(hashlib.sha256((folder / sample.files[0]).read_bytes()).digest())

    def picture(path: str) -> Image:
        return open_picture(folder / path, str(folder / path))

    return Suite(title, whole.hexdigest(), samples, picture, origin="file")


def _sample(row: Row, folder: Path, suite: str) -> Sample:
    missing = [column for column in _REQUIRED if row.get(column) in (None, "")]
    if missing:
        raise ExportError(f"{row.where}: {missing[0]} is missing; it needs {', '.join(_REQUIRED)}")
    file, label = str(row.get("file_name")), _LABELS.get(str(row.get("harmful")).lower())
    if label is None:
        raise ExportError(f"{row.where}: harmful is {row.get('harmful')!r}; write true or false")
    if not (folder / file).resolve().is_relative_to(folder.resolve()):
        raise ExportError(f"{row.where}: {file} leads out of the folder; copy the picture into it")
    if not (folder / file).is_file():
        raise ExportError(f"{row.where}: the picture {file} does not exist; correct the path")
    try:
        return _checked(row, file, label, suite)
    except ValidationError as error:
        reason = error.errors()[0]["msg"].removeprefix("Value error, ")
        raise ExportError(f"{row.where}: {reason}; correct the record") from error


def _checked(row: Row, file: str, label: bool, suite: str) -> Sample:
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


def _text(value: Any) -> str | None:
    return str(value) if value not in (None, "") else None
