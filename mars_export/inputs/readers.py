"""Reading prompts from a user's files."""

import csv
import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError

__all__ = ["json_lines", "read_prompts", "read_suite_texts"]

_FIELDS: Final = ("prompt", "instruction", "goal", "behavior", "behaviour")
"""Names under which published prompt sets keep the prompt; letter case does not matter."""

_Numbered = Iterator[tuple[int, Any]]


def read_prompts(path: Path) -> list[str]:
    """Prompts of a .txt, .json, .jsonl or .csv file, in order.

    A text file holds one prompt a line; empty lines and lines that begin with `#` are skipped.
    JSON records are strings, or objects with `prompt`, `instruction`, `goal` or `Behavior`; a CSV
    file has such a column.

    Raises:
        ExportError: The file cannot be read, has another ending, or a line is malformed.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise ExportError(f"{path}: cannot read {path.suffix or 'this'} files; use {_endings()}.")
    return [_prompt(path, number, item) for number, item in reader(path, _text(path))]


def read_suite_texts(path: Path, split: str) -> dict[bool, list[str]]:
    """Prompts of the text records of one split of a `suite.jsonl`, keyed by `harmful`.

    Raises:
        ExportError: The file cannot be read or a line is malformed.
    """
    texts: dict[bool, list[str]] = {True: [], False: []}
    for number, record in _jsonl(path, _text(path)):
        if not isinstance(record, dict) or not {"modality", "harmful", "split"} <= record.keys():
            raise ExportError(
                f"{path}, line {number}: not a suite record; it needs modality, harmful, split "
                "and prompt."
            )
        if (record["modality"], record["split"]) == ("text", split):
            texts[bool(record["harmful"])].append(_prompt(path, number, record))
    return texts


def _text(path: Path) -> str:
    try:
        return path.read_text("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ExportError(
            f"{path}: not UTF-8 text (byte {error.start}); save it as UTF-8."
        ) from error
    except OSError as error:
        raise ExportError(f"{path}: {error.strerror}; give the path of a prompt file.") from error


def _lines(_: Path, text: str) -> _Numbered:
    stripped = ((number, line.strip()) for number, line in enumerate(text.splitlines(), 1))
    return ((number, line) for number, line in stripped if line and not line.startswith("#"))


def json_lines(text: str) -> Iterator[tuple[int, str]]:
    """The records of a JSON-lines file, each with its line number from 1.

    Not by `splitlines`, which also splits at separators that JSON leaves inside strings.
    """
    return ((number, line) for number, line in enumerate(text.split("\n"), 1) if line.strip())


def _jsonl(path: Path, text: str) -> _Numbered:
    return ((number, _parse(path, line, number)) for number, line in json_lines(text))


def _json(path: Path, text: str) -> _Numbered:
    items = _parse(path, text, 1)
    if not isinstance(items, list):
        raise ExportError(f"{path}, line 1: the file must hold one list of prompts.")
    return enumerate(items, 1)


def _parse(path: Path, text: str, line: int) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        where = line + error.lineno - 1
        raise ExportError(
            f"{path}, line {where}: not valid JSON ({error.msg}); correct it."
        ) from error
    except (ValueError, RecursionError) as error:  # a number or a nesting beyond all sense
        raise ExportError(f"{path}, line {line}: not valid JSON ({error}); correct it.") from error


def _csv(path: Path, text: str) -> _Numbered:
    reader = csv.DictReader(io.StringIO(text))
    try:
        if not {name.lower() for name in reader.fieldnames or ()} & set(_FIELDS):
            raise ExportError(f"{path}, line 1: no column {_names()}; name the prompt column so.")
        for row in reader:
            yield reader.line_num, row
    except csv.Error as error:
        raise ExportError(f"{path}, line {reader.line_num}: {error}; correct the CSV.") from error


def _prompt(path: Path, number: int, item: Any) -> str:
    """The prompt that a record holds; records are counted as lines where a file has no lines."""
    if isinstance(item, dict):
        named = {str(key).lower(): value for key, value in item.items()}
        item = next((named[field] for field in _FIELDS if field in named), None)
    if not isinstance(item, str) or not item.strip():
        unit = "entry" if path.suffix.lower() == ".json" else "line"
        raise ExportError(
            f"{path}, {unit} {number}: no prompt; write a string or an object with {_names()}."
        )
    return item.strip()


def _names() -> str:
    return "prompt, instruction, goal or Behavior"


def _endings() -> str:
    return ", ".join(_READERS)


_READERS: Final[dict[str, Callable[[Path, str], _Numbered]]] = {
    ".txt": _lines,
    ".jsonl": _jsonl,
    ".json": _json,
    ".csv": _csv,
}
