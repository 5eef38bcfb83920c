"""Rows of a benchmark's table, whatever its format: CSV, JSON, JSON lines or Parquet.

Values are taken as they are written. `datasets` guesses types, which makes 7 of an id `007` and
nothing of the text `NA`, and copies pictures into a cache.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.inputs.readers import json_lines

__all__ = ["ENDINGS", "Row", "embedded", "read_table"]

_Numbered = Iterator[tuple[int, Any]]


class Row(NamedTuple):
    """One record of a table."""

    file: Path
    number: int
    """Line of a CSV or JSON-lines file; place of the record, from 1, in the others."""
    values: Mapping[str, Any]
    """Pictures inside a Parquet file are left out; see `embedded`."""

    @property
    def where(self) -> str:
        """For messages, for example `set.csv, line 3`."""
        unit = "line" if self.file.suffix.lower() in (".csv", ".jsonl") else "entry"
        return f"{self.file}, {unit} {self.number}"

    def get(self, column: str) -> Any:
        """The value of a column, or None; `a.b` looks into an object."""
        value: Any = self.values
        for part in column.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value


def read_table(path: Path) -> list[Row]:
    """Every row of a table, in order.

    A JSON file is a list of objects, or an object of objects keyed by anything.

    Raises:
        ExportError: The file cannot be read, has another ending, or a row is malformed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ExportError(f"{path}: cannot read this kind of file; use {', '.join(ENDINGS)}")
    try:
        rows = [Row(path, number, values) for number, values in reader(path)]
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path}: cannot be read ({error}); correct the path or the file"
        ) from error
    for row in rows:
        if not isinstance(row.values, Mapping):
            raise ExportError(f"{row.where}: not a record with named columns; correct it")
    return rows


def embedded(row: Row, column: str) -> bytes | None:
    """The bytes of a picture that lies inside a Parquet file; None if there is none."""
    if row.file.suffix.lower() != ".parquet":
        return None
    place, group = row.number - 1, 0
    for size in _group_sizes(row.file):
        if place < size:
            break
        place, group = place - size, group + 1
    cells = _cells(row.file, column, group)
    return cells[place] if cells else None


def _csv(path: Path) -> _Numbered:
    reader = csv.DictReader(io.StringIO(path.read_text("utf-8-sig")), strict=True)
    try:
        for values in reader:
            if None in values or None in values.values():
                raise ExportError(
                    f"{path}, line {reader.line_num}: not as many columns as the header"
                )
            yield reader.line_num, values
    except csv.Error as error:
        raise ExportError(f"{path}, line {reader.line_num}: {error}; correct the CSV") from error


def _jsonl(path: Path) -> _Numbered:
    lines = json_lines(path.read_text("utf-8-sig"))
    return ((number, _parsed(path, line, number)) for number, line in lines)


def _json(path: Path) -> _Numbered:
    data = _parsed(path, path.read_text("utf-8-sig"), 1)
    if isinstance(data, dict):
        data = list(data.values())
    if not isinstance(data, list):
        raise ExportError(f"{path}: must hold one list of records, or an object of records")
    return enumerate(data, 1)


def _parsed(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = line + error.lineno - 1
        raise ExportError(f"{path}, line {where}: not JSON ({error.msg}); correct it") from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all sense
        raise ExportError(f"{path}, line {line}: not JSON ({error}); correct it") from error


def _parquet(path: Path) -> _Numbered:
    table = _opened(path)
    plain = [field.name for field in table.schema_arrow if not _is_binary(field.type)]
    return enumerate(table.read(columns=plain).to_pylist(), 1)


def _is_binary(kind: Any) -> bool:
    """Whether a column holds pictures: bytes, or an object with bytes in it."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ExportError(
            f"{path} needs pyarrow; run `pip install 'mars-export[suites]'`"
        ) from error
    try:
        return ParquetFile(path)
    except ArrowException as error:
        raise ExportError(f"{path}: not a Parquet file ({error}); download it again") from error


@lru_cache(maxsize=64)
def _group_sizes(path: Path) -> list[int]:
    """Number of rows of every row group."""
    metadata = _opened(path).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


@lru_cache(maxsize=2)
def _cells(path: Path, column: str, group: int) -> list[bytes | None]:
    """The pictures of one row group: requests are read in order, so the next is mostly here."""
    table = _opened(path)
    if column not in table.schema_arrow.names:
        return []
    cells = table.read_row_group(group, columns=[column]).column(0).to_pylist()
    return [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]


_READERS: Final[dict[str, Callable[[Path], _Numbered]]] = {
    ".csv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
}
ENDINGS: Final = tuple(_READERS)
"""File endings that `read_table` knows."""
