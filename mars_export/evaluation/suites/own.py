"""The user's own suite: a table, or a folder with one, as the Hub's image folders have it."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import is_dir
from mars_export.evaluation.suite import SUITE_NAME, Suite, read_suite

__all__ = ["TABLES", "read_own"]

TABLES: Final = (SUITE_NAME, "metadata.csv", "metadata.jsonl", "metadata.parquet")


def read_own(path: Path, name: str | None = None) -> Suite:
    """A table of requests, or a folder with `suite.jsonl` or `metadata.csv` and the like.

    Args:
        path: The user's.
        name: For the report; None for that of the file or folder.

    Raises:
        ExportError: There is no table, or records are malformed; names file and lines.
    """
    if not is_dir(path):
        return read_suite(path, name)
    table = next((path / t for t in TABLES if (path / t).is_file()), None)
    if table is not None:
        return read_suite(table, name)
    below = sorted(found for t in TABLES for found in path.glob(f"*/{t}"))
    hint = f"; give {below[0].parent}, which does" if below else ""
    raise ExportError(f"{path}: a suite's folder holds {' or '.join(TABLES)}{hint}")
