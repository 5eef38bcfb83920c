"""Reading prompts from a user's files."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.problems import Problems
from mars_export.inputs.tables import ENDINGS, Row, read_rows, read_text, text_lines

__all__ = ["PROMPT_KEYS", "Prompt", "has_words", "prompt_of", "read_prompts", "text_problem"]

PROMPT_KEYS: Final = ("prompt", "instruction", "goal", "behavior", "behaviour")
"""Names under which published prompt sets keep the prompt; letter case does not matter."""
_NAMES: Final = "prompt, instruction, goal or Behavior"
_WITH_HEADER: Final = (".csv", ".tsv", ".parquet")
_NO_TEXT: Final = re.compile("[\ud800-\udfff\0]")


class Prompt(NamedTuple):
    """A prompt of a file; where: for messages, for example `bad.txt, line 3`."""

    text: str
    where: str


def read_prompts(path: Path) -> list[Prompt]:
    """Prompts of a text file or of a table, in order.

    A text file holds one prompt a line; empty lines and lines that begin with `#` are skipped.
    JSON records are strings, or objects with `prompt`, `instruction`, `goal` or `Behavior`; other
    tables have such a column.

    Raises:
        ExportError: The file cannot be read, has another ending, or lines are malformed.
    """
    problems = Problems(str(path))
    rows = list(_text_rows(path)) if path.suffix.lower() == ".txt" else _table_rows(path, problems)
    prompts = []
    for row in rows:
        text = prompt_of(row.values) if isinstance(row.values, Mapping) else row.values
        if not isinstance(text, str) or not has_words(text):
            problems.add(row.place, "no prompt", f"write a string or an object with {_NAMES}")
        elif problem := text_problem(text):
            problems.add(row.place, problem, "correct it")
        else:
            prompts.append(Prompt(text.strip(), row.where))
    problems.refuse()
    return prompts


def prompt_of(values: Mapping[str, Any]) -> Any:
    """What a record has as its prompt, under the first of the known names; None if there is none.

    Args:
        values: By column; letter case does not matter.
    """
    named = {str(key).strip().lower(): value for key, value in values.items()}
    return next((named[key] for key in PROMPT_KEYS if key in named), None)


def has_words(text: str) -> bool:
    """Whether a text has anything to see."""
    return any(c.isprintable() and not c.isspace() for c in text)


def text_problem(text: str) -> str:
    """What keeps a text from being one; empty if it is."""
    odd = _NO_TEXT.search(text)
    if odd is None:
        return ""
    if odd[0] == "\0":
        return "a NUL character: is it UTF-16? save it as UTF-8"
    return "half a character (a lone surrogate)"


def _text_rows(path: Path) -> list[Row]:
    stripped = (
        (number, line.strip().lstrip("\ufeff").strip())
        for number, line in text_lines(read_text(path))
    )
    return [Row(path, n, line) for n, line in stripped if line and not line.startswith("#")]


def _table_rows(path: Path, problems: Problems) -> list[Row]:
    if path.suffix.lower() not in ENDINGS:
        read_text(path)  # a file that is not there, or a folder, has no kind
        kind = path.suffix or "nameless"
        raise ExportError(f"{path}: cannot read {kind} files; use .txt, {', '.join(ENDINGS)}")
    rows = read_rows(path, problems, strings=True)
    if rows and path.suffix.lower() in _WITH_HEADER:
        columns = {str(name).strip().lower() for name in rows[0].values}
        if columns.isdisjoint(PROMPT_KEYS):
            raise ExportError(f"{path}, line 1: no column {_NAMES}; name the prompt column so")
    return rows
