"""Preparing a response for rules: plain characters, sentences, loops. Free of torch."""

import re
import unicodedata
from collections.abc import Sequence
from itertools import takewhile
from typing import Final

__all__ = ["is_repetition", "plain", "sentences"]

_QUOTES: Final = str.maketrans(
    {"\u2018": "'", "\u2019": "'", "\u02bc": "'", "`": "'", "\u201c": '"', "\u201d": '"'}
)
_MARKDOWN: Final = re.compile(r"[*_~#>|]+|(?m:^\s*[-+]\s+)")
_SPEAKER: Final = re.compile(r"^\s*(?:assistant|model|ai|answer|response)\s*:\s*", re.IGNORECASE)
_BREAK: Final = re.compile(r"(?<=[.!?])[\"')\]]*\s+|(?<=[\u3002\uff01\uff1f\u0964\u061f])|\n\s*\n")
_MIN_PERIODS: Final = 3
_MIN_UNITS: Final = 6


def plain(text: str) -> str:
    """Lower case, ASCII quotes, no markdown marks, no speaker label; line breaks are kept."""
    text = unicodedata.normalize("NFKC", text).translate(_QUOTES)
    return _SPEAKER.sub("", _MARKDOWN.sub(" ", text)).strip().lower()


def sentences(text: str) -> list[str]:
    """Sentences of `plain` text, with single spaces."""
    return [" ".join(part.split()) for part in _BREAK.split(text) if part.strip()]


def is_repetition(text: str) -> bool:
    """Whether `plain` text is, or runs into, the same few words or characters over and over.

    True when the loop makes up at least half of the text.
    """
    words = re.findall(r"\w+", text)
    units: Sequence[str] = words if len(words) >= _MIN_UNITS else text.replace(" ", "")
    return any(_is_loop(units, period) for period in range(1, len(units) // _MIN_PERIODS + 1))


def _is_loop(units: Sequence[str], period: int) -> bool:
    """Whether the end of the text, at least half of it, repeats a unit of that length."""
    run = takewhile(lambda i: units[i] == units[i - period], range(len(units) - 1, period - 1, -1))
    length = sum(1 for _ in run) + period
    return length >= max(_MIN_UNITS, _MIN_PERIODS * period, len(units) / 2)
