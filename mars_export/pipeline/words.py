"""What several options share: lists of words, options in a word, and problems at their place."""

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

__all__ = ["listed", "options_in", "problem"]


def listed(value: Any) -> Any:
    """What may be given once or several times, as a tuple of texts."""
    alone = (value,) if isinstance(value, str | Path) else value
    return tuple(map(str, alone)) if isinstance(alone, list | tuple) else alone


def options_in(word: str) -> dict[str, str]:
    """Options of `NAME:OPTION=VALUE,...`."""
    parts = [part for part in word.partition(":")[2].split(",") if part]
    wrong = next((part for part in parts if not re.fullmatch(r"[\w-]+=.+", part)), None)
    if wrong is not None:
        raise ValueError(f"{wrong} is not OPTION=VALUE")
    options: dict[str, str] = {}
    for option, _, value in (part.partition("=") for part in parts):
        if options.setdefault(option.replace("-", "_"), value) != value:
            raise ValueError(f"{option} is given twice")
    return options


def problem(option: str, value: Any, wanted: str) -> ValidationError:
    """The error for an option, at its place."""
    error = PydanticCustomError("method", "{wanted}", {"wanted": wanted})
    details = InitErrorDetails(type=error, loc=(option,), input=value)
    return ValidationError.from_exception_data("Settings", [details])
