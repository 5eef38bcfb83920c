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
        ExportError: There is no table, more than one of metadata, or records are malformed; names
            file and lines.
    """
    if not is_dir(path):
        return read_suite(path, name)
    tables = [table for table in TABLES if (path / table).is_file()]
    if len(tables) > 1 and tables[0] != SUITE_NAME:
        raise ExportError(f"{path} holds {' and '.join(tables)}; give one of the files")
    if tables:
        return read_suite(path / tables[0], name)
    below = sorted(found for t in TABLES for found in path.glob(f"*/{t}"))
    hint = f"; give {below[0].parent}, which does" if below else ""
    raise ExportError(f"{path}: a suite's folder holds {' or '.join(TABLES)}{hint}")
