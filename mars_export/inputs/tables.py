"""Rows of a user's table, whatever its format: CSV, TSV, JSON, JSON lines or Parquet.

Values are taken as they are written. `datasets` guesses types, which makes 7 of an id `007` and
nothing of the text `NA`, and copies pictures into a cache.
"""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.common.problems import Problems, near_file

__all__ = [
    "ENDINGS",
    "Row",
    "embedded",
    "embedding_columns",
    "read_rows",
    "read_table",
    "read_text",
    "text_lines",
]

_Numbered = Iterator[tuple[int, Any]]
_END: Final = re.compile("\r\n|\n|\r")
_LINED: Final = (".csv", ".tsv", ".jsonl", ".ndjson", ".txt")
"""Files whose records are lines; those of others are entries."""


class Row(NamedTuple):
    """One record of a table."""

    file: Path
    number: int
    """Line of a CSV or JSON-lines file; place of the record, from 1, in the others."""
    values: Any
    """By column. Media inside a Parquet file are left out; see `embedded`. In a JSON file of
    prompts and in a text file, a string."""

    @property
    def place(self) -> str:
        """For messages, for example `line 3`."""
        unit = "line" if self.file.suffix.lower() in _LINED or not self.file.suffix else "entry"
        return f"{unit} {self.number}"

    @property
    def where(self) -> str:
        """For messages, for example `set.csv, line 3`."""
        return f"{self.file}, {self.place}"

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
        ExportError: The file cannot be read, has another ending, or rows are malformed.
    """
    problems = Problems(str(path))
    rows = read_rows(path, problems)
    problems.refuse()
    return rows


def read_rows(path: Path, problems: Problems, *, strings: bool = False) -> list[Row]:
    """The rows of a table that are well formed; the others are noted as problems.

    Args:
        path: A file of `ENDINGS`; JSON lines if it has no ending.
        problems: Of this file.
        strings: Whether records may be strings.

    Raises:
        ExportError: The file cannot be read or has another ending.
    """
    reader = _READERS.get(path.suffix.lower() or ".jsonl")
    if reader is None:
        read_text(path)  # a file that is not there, or a folder, has no kind
        raise ExportError(f"{path}: cannot read this kind of file; use {', '.join(ENDINGS)}")
    rows = [Row(path, number, values) for number, values in reader(path)]
    whole = []
    for row in rows:
        if isinstance(row.values, _Malformed):
            problems.add(f"line {row.values.line}", row.values.what, "correct it")
        elif isinstance(row.values, Mapping) or (strings and isinstance(row.values, str)):
            whole.append(row)
        elif strings:
            whole.append(row._replace(values=None))
        else:
            problems.add(row.place, "not a record with named columns", "correct it")
    return whole


def read_text(path: Path) -> str:
    """The text of a user's file.

    Raises:
        ExportError: It cannot be read, or is not UTF-8.
    """
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExportError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8"
        ) from error
    except IsADirectoryError as error:
        raise ExportError(f"{path}: this is a folder; give a file") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        hint = near_file(path) or "; correct the path"
        raise ExportError(f"{path}: {reason}{hint}") from error


def text_lines(text: str) -> Iterator[tuple[int, str]]:
    """The lines of a text, each with its number from 1.

    Not by `splitlines`, which also splits at characters that stand inside sentences and strings.
    """
    return enumerate(_END.split(text), 1)


class _Malformed(NamedTuple):
    line: int
    what: str


def embedded(row: Row, column: str) -> bytes | None:
    """The bytes of a picture or sound that lies inside a Parquet file; None if there is none."""
    if row.file.suffix.lower() != ".parquet":
        return None
    place, group, sizes = row.number - 1, 0, _group_sizes(row.file)
    if not 0 <= place < sum(sizes):
        return None
    for size in sizes:
        if place < size:
            break
        place, group = place - size, group + 1
    cells = _cells(row.file, column, group)
    return cells[place] if cells else None


@lru_cache(maxsize=64)
def embedding_columns(path: Path) -> tuple[str, ...]:
    """Columns of a Parquet file that hold media themselves; none of another table."""
    if path.suffix.lower() != ".parquet":
        return ()
    return tuple(field.name for field in _opened(path).schema_arrow if _is_binary(field.type))


def _csv(path: Path) -> _Numbered:
    text = read_text(path)
    header = text.partition("\n")[0]
    delimiter = "\t" if path.suffix.lower() == ".tsv" else max(",;\t", key=header.count)
    reader = csv.DictReader(io.StringIO(text), strict=True, delimiter=delimiter)
    try:
        for values in reader:
            short = None in values or None in values.values()
            wrong = _Malformed(reader.line_num, "not as many columns as the header")
            yield reader.line_num, wrong if short else values
    except csv.Error as error:  # what follows cannot be told apart
        yield reader.line_num, _Malformed(reader.line_num, f"not CSV ({error})")


def _jsonl(path: Path) -> _Numbered:
    for number, line in text_lines(read_text(path)):
        if line.strip().lstrip("\ufeff"):
            yield number, _parsed(line.lstrip("\ufeff"), number)


def _json(path: Path) -> _Numbered:
    data = _parsed(read_text(path), 1)
    if isinstance(data, _Malformed):
        return _json_or_lines(path, data)
    if isinstance(data, dict) and all(isinstance(value, dict) for value in data.values()):
        data = list(data.values())
    if not isinstance(data, list):
        raise ExportError(f"{path}: must hold one list of records, or an object of records")
    return enumerate(data, 1)


def _json_or_lines(path: Path, whole: _Malformed) -> _Numbered:
    """The lines of a file that is JSON lines in spite of its ending, as some benchmarks have it."""
    lines = list(_jsonl(path))
    objects = len(lines) > 1 and all(isinstance(value, dict) for _, value in lines)
    return iter(lines) if objects else iter([(1, whole)])


def _parsed(text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        return _Malformed(line + error.lineno - 1, f"not JSON ({error.msg})")
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all sense
        return _Malformed(line, f"not JSON ({error})")


def _parquet(path: Path) -> _Numbered:
    table = _opened(path)
    plain = [field.name for field in table.schema_arrow if not _is_binary(field.type)]
    try:
        return enumerate(table.read(columns=plain).to_pylist(), 1)
    except (ValueError, OSError, MemoryError) as error:  # pyarrow's errors are of these kinds
        raise ExportError(f"{path}: not a Parquet file ({error}); download it again") from error


def _is_binary(kind: Any) -> bool:
    """Whether a column holds media: bytes, or an object with bytes in it."""
    import pyarrow.types as types

    if types.is_struct(kind):
        return any(_is_binary(kind.field(index).type) for index in range(kind.num_fields))
    return bool(types.is_binary(kind) or types.is_large_binary(kind))


def _opened(path: Path) -> Any:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise ExportError(f"{path} needs pyarrow; run `{install_extra('suites')}`") from error
    try:
        return ParquetFile(path)
    except FileNotFoundError as error:
        raise ExportError(f"{path}: there is no such file; correct the path") from error
    except (ArrowException, OSError) as error:
        raise ExportError(f"{path}: not a Parquet file ({error}); download it again") from error


@lru_cache(maxsize=64)
def _group_sizes(path: Path) -> list[int]:
    """Number of rows of every row group."""
    metadata = _opened(path).metadata
    return [metadata.row_group(group).num_rows for group in range(metadata.num_row_groups)]


@lru_cache(maxsize=2)
def _cells(path: Path, column: str, group: int) -> list[bytes | None]:
    """The media of one row group: requests are read in order, so the next is mostly here."""
    table = _opened(path)
    if column not in table.schema_arrow.names:
        return []
    cells = table.read_row_group(group, columns=[column]).column(0).to_pylist()
    return [cell.get("bytes") if isinstance(cell, dict) else cell for cell in cells]


_READERS: Final[dict[str, Callable[[Path], _Numbered]]] = {
    ".csv": _csv,
    ".tsv": _csv,
    ".json": _json,
    ".jsonl": _jsonl,
    ".ndjson": _jsonl,
    ".parquet": _parquet,
}
ENDINGS: Final = tuple(_READERS)
"""File endings that are tables."""
