"""How turns begin, in the tokens of the model's own chat template."""

import copy
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from jinja2 import TemplateError

from mars_export.common.errors import ExportError
from mars_export.common.header import Header
from mars_export.inputs.chat_template import chat_template, require_template
from mars_export.inputs.merges import added_tokens, encode, merged_headers, tokenizer_of

__all__ = [
    "TurnTokens",
    "bare_template",
    "thinking_options",
    "thinking_word",
    "turn_tokens",
    "with_options",
]

_SWITCHES: Final = ("enable_thinking", "thinking")
"""Template variables that turn a model's thinking on and off."""
_OPTION: Final = "{{%- set {} = {} -%}}"
_FIXED: Final = re.compile(r"(?:\{%- set (?:enable_)?thinking = (?:true|false) -%\})+")
"""What `with_options` writes before a template."""
_ROLES: Final = ("user", "tool", "system")
"""Whose turns may stand behind an assistant's."""
_ANSWER: Final = "qzx"
_CONTENT: Final = "wkv"
"""Contents that no template says by itself, to find the turns in what it renders."""
_ENDS: Final = ("", "\n", " ", ".")
_ANSWERS: Final = [_ANSWER + end for end in _ENDS]
_QUESTIONS: Final = [_CONTENT + end for end in _ENDS]
_CONTENTS: Final = [start + _CONTENT for start in ("", "\n", " ", "/", '"', "s")]

_WORD: Final = r"[^\W\d_]{2}"
_MARK: Final = r"[\[\]{}<>|#]"
"""With a word it makes a header, as `### Response`; punctuation of sentences does not."""
_SPEAKER: Final = r"(?i)\b(assistant|chatbot|bot|ai)\s*:"
"""The role, as a transcript names who speaks."""
_ERRORS: Final = (
    TemplateError,
    ArithmeticError,
    AttributeError,
    LookupError,
    RuntimeError,
    TypeError,
    ValueError,
)
"""What a template can raise: its own errors, and those of the operations that it calls."""

_Mode = dict[str, bool]


class TurnTokens(NamedTuple):
    """How turns begin in the tokens of a chat template.

    headers: of assistant turns. turn_starts: of everybody else's.
    """

    headers: list[Header]
    turn_starts: list[list[int]]


def thinking_options(processor: Any, thinking: bool | None) -> dict[str, bool]:
    """What sets the thinking switch of a chat template; nothing for the template's default.

    Args:
        processor: A Transformers processor or tokenizer.
        thinking: Whether the model thinks; None for the default.

    Raises:
        ExportError: The template has no such switch.
    """
    if thinking is None:
        return {}
    switches = _switches(chat_template(processor))
    if not switches:
        raise ExportError(
            f"The chat template has no thinking switch ({' or '.join(_SWITCHES)}); "
            "leave --thinking out."
        )
    return dict.fromkeys(switches, thinking)


def thinking_word(options: Mapping[str, bool]) -> str | None:
    """What `--thinking` is given for `thinking_options`: on, off, or None for the default."""
    return ("on" if all(options.values()) else "off") if options else None


def with_options(processor: Any, options: Mapping[str, bool]) -> Any:
    """A processor whose chat template always has these options, whatever its callers pass.

    Args:
        processor: A Transformers processor or tokenizer; it is left as it was.
        options: Of `thinking_options`.
    """
    if not options:
        return processor
    lines = (_OPTION.format(name, str(on).lower()) for name, on in options.items())
    return _with_template(processor, "".join(lines) + chat_template(processor))


def bare_template(processor: Any) -> str:
    """The chat template without what `with_options` writes before it; empty if there is none."""
    template = chat_template(processor)
    start = _FIXED.match(template)
    return template[start.end() :] if start else template


def _with_template(processor: Any, template: str) -> Any:
    other = copy.copy(processor)
    other.chat_template = template
    return other


def turn_tokens(processor: Any) -> TurnTokens:
    """Read off the chat template how turns begin.

    A header ends where the template's modes and turns begin to differ: where the generation prompt
    of `assistant` and a line feed opens a thought in one mode, the line feed is its end. Where the
    end of the user's turn begins the answer, as `[/INST]` does, that end is the header.

    Args:
        processor: A Transformers processor, or the tokenizer of a text-only model, with a chat
            template.

    Raises:
        ExportError: The template is missing or cannot be rendered, nothing in it begins an answer,
            earlier assistant turns begin without the header, or the header cannot be told from
            ordinary text.
    """
    require_template(processor)
    template = bare_template(processor)  # a header is what all modes share, also those left out
    if template != processor.chat_template:
        processor = _with_template(processor, template)
    tokenizer = tokenizer_of(processor)
    texts: dict[tuple[int, ...], str] = {}
    for mode in _modes(template):
        texts |= _headers(processor, mode)
    headers = _shortest(texts)
    _require_distinct(processor, headers, template)
    variants = [
        variant
        for header in headers
        for variant in merged_headers(tokenizer, texts[tuple(header)], header)
    ]
    starts = [start for role in _ROLES for start in _turn_start(processor, role, headers)]
    return TurnTokens(variants, _shortest(starts))


def _require_distinct(processor: Any, headers: list[list[int]], template: str) -> None:
    """Refuse headers that stand in ordinary text, or elsewhere than where an answer begins."""
    tokenizer = tokenizer_of(processor)
    text = next((tokenizer.decode(h) for h in headers if not _is_distinct(tokenizer, h)), None)
    if text is not None:
        raise ExportError(
            f"The chat template begins assistant turns with {text!r}, which ordinary text may hold "
            "as well, so the position to steer is unknown; use a template whose assistant header "
            "has a special token, a marked word such as '### Response', or 'Assistant:'."
        )
    question = _turn("user", _CONTENT)
    turns = [question, _turn("assistant", _ANSWER), question, _turn("assistant", _ANSWER), question]
    for mode in _modes(template):
        ids = encode(tokenizer, _text(processor, turns, mode, add_generation_prompt=True))
        ends = {place + len(header) for header in headers for place in _places(ids, header)}
        if len(ends) != len(turns) // 2 + 1:
            raise ExportError(
                f"The chat template has {len(ends)} assistant headers in a conversation of three "
                "answers, so the positions to steer are unknown; use a template that begins each "
                "answer, and nothing else, with its header."
            )


def _modes(template: str) -> list[_Mode]:
    """Settings of the template's thinking switch, its default first."""
    return [{}, *({name: on} for name in _switches(template) for on in (True, False))]


def _switches(template: str) -> list[str]:
    return [name for name in _SWITCHES if re.search(rf"\b{name}\b", template)]


def _headers(processor: Any, mode: _Mode) -> dict[tuple[int, ...], str]:
    """Headers of one mode, each with a text that holds it.

    The first tokens of a header may have merged with the text before it, so several texts are
    tried. What all have in common is the header, if that says enough; each is one otherwise.
    """
    tokenizer = tokenizer_of(processor)
    headers = {}
    for question in _QUESTIONS:
        text = _text(processor, [_turn("user", question)], mode, add_generation_prompt=True)
        headers[tuple(_header(processor, mode, question, encode(tokenizer, text)))] = text
    shared = _common_suffix([list(header) for header in headers])
    *_, example = headers.values()
    return {tuple(shared): example} if _is_distinct(tokenizer, shared) else headers


def _header(processor: Any, mode: _Mode, question: str, prompt: list[int]) -> list[int]:
    """The part of the generation prompt that earlier assistant turns begin with as well.

    prompt: tokens of the question and the generation prompt. Blanks at the header's beginning are
    left out.
    """
    tokenizer = tokenizer_of(processor)
    user, reply = _turn("user", question), _turn("assistant", _ANSWER)
    bare = _text(processor, [user], mode)
    if _CONTENT not in bare:
        raise ExportError(
            "The chat template leaves out what the user says; use one that takes messages as "
            f"{type(processor).__name__} gives them."
        )
    text = _text(processor, [user, reply, user], mode)
    # Without a generation prompt the header is the end of the user's turn.
    header = prompt[_common(encode(tokenizer, bare), prompt) :]
    header = header or prompt[_end_of_question(tokenizer, question, bare, text) :]
    conversation = encode(tokenizer, text)
    shared = header[: _common(header, conversation[len(prompt) - len(header) :])]
    if not shared:
        raise ExportError(
            "The chat template writes earlier assistant turns without the header of its "
            "generation prompt, so those turns could not be steered; use a consistent template."
        )
    special = added_tokens(tokenizer)
    blank = [token not in special and not tokenizer.decode([token]).strip() for token in shared]
    return shared if all(blank) else shared[blank.index(False) :]


def _end_of_question(tokenizer: Any, question: str, bare: str, conversation: str) -> int:
    """Number of tokens up to the end of the question in `bare`, where its turn begins the answer.

    bare: the question's turn. conversation: the same with an answer behind it.
    """
    asked = question.strip()
    turn, stop = bare.rstrip(), bare.rfind(asked) + len(asked)
    behind = conversation.removeprefix(turn).lstrip()
    if not turn[stop:] or not behind.startswith(_ANSWER):
        raise ExportError(
            "The chat template adds no generation prompt, and nothing at the end of the user's "
            "turn begins the answer, so the position to steer is unknown; give the model a "
            "template that honors add_generation_prompt."
        )
    return _common(encode(tokenizer, bare), encode(tokenizer, bare[:stop]))


def _turn_start(processor: Any, role: str, headers: list[list[int]]) -> list[list[int]]:
    """How the role's turns begin, whatever stands around; nothing if it begins no turn."""
    starts = []
    for answer in _ANSWERS:
        openings = [_opening(processor, role, answer, text, headers) for text in _CONTENTS]
        starts.append(_common_prefix(openings))
    start = _common_suffix(starts)
    if any(_holds(header, start) or _holds(start, header) for header in headers):
        return []
    return [start] if _holds_word(tokenizer_of(processor), start) else []


def _opening(
    processor: Any, role: str, answer: str, content: str, headers: list[list[int]]
) -> list[int]:
    """Tokens between an assistant turn and the content of a turn behind it.

    Empty if the template renders no such turn, or answers it without a header.
    """
    tokenizer = tokenizer_of(processor)
    turns = [_turn("user", "a"), _turn("assistant", answer)]
    try:
        text = _text(processor, [*turns, _turn(role, content)], {}, add_generation_prompt=True)
    except ExportError:
        return []
    stop = text.rfind(_CONTENT)
    start = text.rfind(_ANSWER, 0, max(stop, 0)) + len(_ANSWER)
    if stop < 0 or start < len(_ANSWER):
        return []
    closed = _text(processor, turns, {})
    start += _common(text[start:stop], closed[closed.rfind(_ANSWER) + len(_ANSWER) :])
    start += len(text[start:stop]) - len(text[start:stop].lstrip())
    ids = encode(tokenizer, text)
    # Blanks at its end would merge with the content.
    edges = (text[:start], text[:stop].rstrip(" "))
    first, behind = (_common(ids, encode(tokenizer, edge)) for edge in edges)
    answered = any(_holds(ids[behind:], header) for header in headers)
    return ids[first:behind] if answered else []


def _turn(role: str, content: str) -> dict[str, Any]:
    return {"role": role, "content": content}


def _text(processor: Any, conversation: list[dict[str, Any]], mode: _Mode, **options: bool) -> str:
    if tokenizer_of(processor) is not processor:  # multimodal templates walk through typed parts
        conversation = [
            {**turn, "content": [{"type": "text", "text": turn["content"]}]}
            for turn in conversation
        ]
    try:
        text = processor.apply_chat_template(conversation, tokenize=False, **options, **mode)
    except _ERRORS as error:
        raise ExportError(
            f"The chat template cannot render a plain conversation ({' '.join(str(error).split())})"
            "; correct it, or use one that takes user and assistant turns of text."
        ) from error
    return str(text)


def _is_distinct(tokenizer: Any, tokens: list[int]) -> bool:
    """Whether they make a header: a special token, a marked word, or the name of the speaker."""
    text = tokenizer.decode(tokens)
    marked = re.search(_WORD, text) and re.search(_MARK, text)
    special = not added_tokens(tokenizer).isdisjoint(tokens)
    return special or bool(marked or re.search(_SPEAKER, text))


def _holds_word(tokenizer: Any, tokens: list[int]) -> bool:
    special = not added_tokens(tokenizer).isdisjoint(tokens)
    return special or bool(re.search(r"\w", tokenizer.decode(tokens)))


def _shortest(sequences: Iterable[Sequence[int]]) -> list[list[int]]:
    """Without repetitions, and those that hold another one."""
    unique = [list(s) for s in dict.fromkeys(map(tuple, sequences))]
    return [s for s in unique if not any(s != t and _holds(s, t) for t in unique)]


def _places(sequence: list[int], part: list[int]) -> list[int]:
    """Where `part` begins in the sequence."""
    starts = range(len(sequence) - len(part) + 1)
    return [start for start in starts if sequence[start : start + len(part)] == part]


def _holds(sequence: list[int], part: list[int]) -> bool:
    return bool(_places(sequence, part))


def _common(a: Sequence[Any], b: Sequence[Any]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))


def _common_prefix(sequences: list[list[int]]) -> list[int]:
    return sequences[0][: min(_common(sequences[0], other) for other in sequences)]


def _common_suffix(sequences: list[list[int]]) -> list[int]:
    return _common_prefix([sequence[::-1] for sequence in sequences])[::-1]
