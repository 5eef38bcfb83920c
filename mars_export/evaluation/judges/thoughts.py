"""Cutting off what a model thinks before it answers. Free of torch.

Models that reason write their thoughts into the same text as the answer. Some mark them by words
that decoding keeps (`<think>` of Qwen and DeepSeek, `[THINK]` of Mistral), others by special
tokens that decoding drops, so that only the names of the channels stay behind (`analysis ...
assistantfinal ...` of gpt-oss, `thought` of Gemma). `data/thoughts.toml` lists the marks.

The order of the marks decides, read from the first to the last:

- From an opening mark to its closing mark all is thought, whatever is nested in it.
- A thought that is opened and never closed was cut off. Nothing can be said of the response, even
  where an answer stands before it.
- A closing mark that nothing opened ends a thought that the template opened: what stands before
  it is thought. If nothing follows it, there is no answer.
- A further closing mark, after thoughts have ended, is stray if the response began with a thought
  and nothing follows the mark. Otherwise the text before it may be thought or answer, and nothing
  can be said.
- Marks in code, in quotation marks and in mentions ("the <think> tag") belong to the answer.
"""

import re
import tomllib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any, Final, Literal

from mars_export.evaluation.judges.phrases import expanded

__all__ = ["CODE", "answer_of"]

_FILE: Final = "thoughts.toml"


@dataclass(frozen=True)
class _Marks:
    """One row of the table: how thoughts of a kind open and close, as regular expressions."""

    kind: str
    close: str
    open: str = r"(?!)"
    inner: str = ""
    open_ended: Literal["cut off", "first", "never"] = "never"
    needs_open: bool = False
    nests: bool = True
    last: bool = False


_RAW: Final = tomllib.loads((files("mars_export.evaluation") / "data" / _FILE).read_text("utf-8"))


def _table() -> tuple[_Marks, ...]:
    parts: dict[str, Any] = _RAW["parts"]

    def row(pattern: dict[str, Any], **more: Any) -> _Marks:
        fields = {key: value for key, value in (pattern | more).items() if key != "word"}
        for key in {"open", "close", "inner"} & fields.keys():
            fields[key] = expanded(fields[key], parts | more)
        return _Marks(**fields)

    words = [
        row(style, kind=kind, **word) for kind, word in _RAW["words"].items()
        for style in _RAW["styles"]
    ]  # fmt: skip
    return (*words, *map(row, _RAW["pairs"]))


_TABLE: Final = _table()
_FLAGS: Final = re.IGNORECASE | re.DOTALL

CODE: Final = (
    r"(?m:^)[ \t]*(?P<fence>`{3,}|~{3,})(?P<info>[^\n`]*)(?:\n(?P<code>.*?))??"
    r"(?:\n[ \t]*(?P=fence)[`~]*[ \t]*(?=\n|\Z)|\Z)"
)
"""A fenced block of code, which the end of the text may cut off; for `re.DOTALL`."""
_SPAN: Final = r"(?P<ticks>`+)(?!`)[^\n]*?(?<!`)(?P=ticks)(?!`)|<(?P<tag>code|pre)>.*?</(?P=tag)>"

_MARK: Final = "|".join(
    pattern for row in _TABLE if row.nests and not row.inner for pattern in (row.open, row.close)
)
_MENTION: Final = (
    r"(?:(?<=[\s(\[{,:=][\"'\u201c\u2018\u00ab`])|(?<=\A[\"'\u201c\u2018\u00ab`]))"
    rf"(?:{_MARK})(?=[\"'\u201d\u2019\u00bb`](?!\w))"
    rf"|(?<=\w )(?:{_MARK})(?:[\s.,/\u2026]{{0,5}}(?:(?:and|or|to) )?(?:{_MARK}))?"
    r"(?= (?:tags?|tokens?|elements?|marks?|markers?|blocks?|sections?)\b)"
)


def _pattern(*literal: str) -> re.Pattern[str]:
    """A mark (group `o` or `c` and its row) or literal text (group `literal`), here."""
    marks = [
        f"(?P<{key}{i}>{pattern})"
        for i, row in enumerate(_TABLE)
        for key, pattern in (("o", row.open), ("c", row.close), ("i", row.inner))
        if pattern
    ]
    return re.compile("|".join((f"(?P<literal>{'|'.join(literal)})", *marks)), _FLAGS)


_OUTSIDE: Final = _pattern(CODE, _SPAN, _MENTION)
_INSIDE: Final = _pattern(_MENTION)
_PLACES: Final = re.compile(_RAW["places"], _FLAGS)
_CLOSES: Final = tuple(re.compile(row.close, _FLAGS) for row in _TABLE)

_ROLE: Final = (
    r"<\|(?:im_start|start|begin|start_header_id)\|>(?:assistant|model)\b(?:<\|end_header_id\|>)?"
    r"|<start_of_turn>model\b|<\|begin_of_text\|>|<(?:s|bos)>"
)
_START: Final = re.compile(rf"^\s*(?:(?:{_ROLE})\s*)+", _FLAGS)
_LONE_FINAL: Final = re.compile(r"^\s*(?:assistant\s*)?final(?=[A-Z\n])\s*")
_TOKEN: Final = re.compile(
    rf"(?P<literal>{CODE}|{_SPAN})|{_ROLE}|<\|[a-z_/ ]{{1,30}}\|>|<[a-z_]{{1,20}}\|>|"
    r"<(?:end|start)_of_turn>|</?s>|<(?:eos|bos|pad)>|</?(?:answer|response|final)>|"
    r"<\|(?:begin|end)_of_solution\|>",
    _FLAGS,
)
"""Control tokens and marks of the answer, which say nothing, unless they stand in code."""


def answer_of(response: str) -> str | None:
    """The answer in a response, without the thoughts before, in and after it.

    Args:
        response: Decoded text, with or without special tokens.

    Returns:
        None where there is no answer or where it cannot be told from the thoughts: a thought that
        was cut off, thoughts only, or marks that contradict each other. A response without
        thoughts comes back as it is, but for control tokens.
    """
    reader = _Reader(_START.sub("", response))
    text = reader.answer()
    if text is None:
        return None
    answer = _without_tokens(_LONE_FINAL.sub("", text))
    return None if reader.has_thoughts and not answer.strip() else answer


def _without_tokens(text: str) -> str:
    if "<" not in text:
        return text
    return _TOKEN.sub(lambda match: match["literal"] or "", text)


class _Reader:
    """Reads a response from the first mark to the last."""

    def __init__(self, text: str) -> None:
        self.has_thoughts = False
        self._text = text
        self._stack: list[str] = []  # kinds of the thoughts that are open
        self._opened = 0  # where the text behind the last opening mark begins
        self._pieces: list[str] = []  # what stands outside of thoughts
        self._start = 0  # where the text behind the last thought begins
        self._ended = False  # whether thoughts have ended
        self._lead = ""  # what stands before the first thought
        self._stray: list[str] = []  # what stands before further closing marks

    def answer(self) -> str | None:
        """What stands outside of thoughts; None if that cannot be told."""
        end = 0
        while end <= len(self._text) and (place := _PLACES.search(self._text, end)):
            match = (_INSIDE if self._stack else _OUTSIDE).match(self._text, place.start())
            end = self._read(match) if match else place.start() + 1
        if self._stack or (self._stray and self._lead):
            return None
        candidates = [*self._stray, self._outside(len(self._text))]
        visible = [text for text in candidates if _without_tokens(text).strip()]
        return visible[0] if len(visible) == 1 else None if visible else candidates[-1]

    def _outside(self, end: int) -> str:
        return "".join((*self._pieces, self._text[self._start : end]))

    def _read(self, match: re.Match[str]) -> int:
        """Take one mark in; returns where to read on."""
        group = match.lastgroup or ""
        if group == "literal":
            return self._end_of_literal(match)
        row = _TABLE[int(group[1:])]
        if group[0] == "c":
            self._close(row, match)
        elif group[0] == "o" or row.kind in self._stack:
            self._open(row, match)
        return match.end()

    def _end_of_literal(self, match: re.Match[str]) -> int:
        """A fence in which a thought ends that did not begin there belongs to the thought."""
        if match.re is _INSIDE or not match["fence"]:
            return match.end()
        depth = 0
        for place in _PLACES.finditer(self._text, match.start("info"), match.end()):
            mark = _INSIDE.match(self._text, place.start(), match.end())
            group = (mark and mark.lastgroup) or "no mark"
            depth += {"o": 1, "c": -1}.get(group[0], 0)
            if depth < 0 and not _TABLE[int(group[1:])].needs_open:
                return place.start()
            depth = max(depth, 0)
        return match.end()

    def _open(self, row: _Marks, match: re.Match[str]) -> None:
        if self._stack:
            is_same = row.kind in self._stack and not row.nests
            gap = self._text[self._opened : match.start()]
            is_double = not row.inner and not gap.strip()
            if not is_same and not (is_double and row.kind == self._stack[-1]):
                self._stack.append(row.kind)
        elif self._is_thought(row, match):
            if not self._ended:
                self._lead = _without_tokens(self._text[: match.start()]).strip()
            self._pieces.append(self._text[self._start : match.start()])
            self._stack.append(row.kind)
            self.has_thoughts = True
        self._opened = match.end()

    def _is_thought(self, row: _Marks, match: re.Match[str]) -> bool:
        """Whether an opening mark is more than something to be filled in."""
        if row.open_ended == "cut off":
            return True
        if row.open_ended == "first" and not self._outside(match.start()).strip():
            return True
        closes = (c for r, c in zip(_TABLE, _CLOSES, strict=True) if r.kind == row.kind)
        return any(close.search(self._text, match.end()) for close in closes)

    def _close(self, row: _Marks, match: re.Match[str]) -> None:
        if row.last and _CLOSES[_TABLE.index(row)].search(self._text, match.end()):
            return
        if row.kind in self._stack:
            del self._stack[self._last(row.kind) :]
        elif self._stack or row.needs_open:
            return
        else:
            self._end_of_template(match)
        if not self._stack:
            self._start, self._ended = match.end(), True

    def _last(self, kind: str) -> int:
        return len(self._stack) - 1 - self._stack[::-1].index(kind)

    def _end_of_template(self, match: re.Match[str]) -> None:
        """A closing mark that nothing in the response opened."""
        if self._ended:
            self._stray.append(self._outside(match.start()))
        self._pieces.clear()
        self.has_thoughts = True
