"""Where an assistant turn begins, in the tokens of the model's own chat template."""

import re
from collections.abc import Sequence
from typing import Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.header import Header

__all__ = ["TurnTokens", "turn_tokens"]

_USER: Final = {"role": "user", "content": "a"}
_REPLY: Final = {"role": "assistant", "content": "b"}
_SWITCHES: Final = ("enable_thinking", "thinking")
"""Template variables that turn a model's thinking on and off."""


class TurnTokens(NamedTuple):
    """How turns begin in the tokens of a chat template.

    headers: of assistant turns. turn_starts: of everybody else's.
    """

    headers: list[Header]
    turn_starts: list[list[int]]


def turn_tokens(processor: Any) -> TurnTokens:
    """Read off the chat template how turns begin.

    A header ends where the template's modes and turns begin to differ: where the generation prompt
    of `assistant` and a line feed opens a thought in one mode, the line feed is its end.

    Args:
        processor: A Transformers processor, or the tokenizer of a text-only model, with a chat
            template.

    Raises:
        ExportError: The template is missing, adds no generation prompt, or writes earlier assistant
            turns without the header.
    """
    if not getattr(processor, "chat_template", None):
        raise ExportError(
            "The processor has no chat template; add chat_template.jinja to the model."
        )
    headers: list[list[int]] = []
    for mode in _modes(str(processor.chat_template)):
        for header in _headers(processor, mode):
            if header not in headers:
                headers.append(header)
    shortest = [h for h in headers if not any(h[: len(g)] == g for g in headers if g != h)]
    return TurnTokens([Header(prefix=h[:-1], ends=h[-1:]) for h in shortest], [])


def _modes(template: str) -> list[dict[str, bool]]:
    """Settings of the template's thinking switch, its default first."""
    switches = [name for name in _SWITCHES if re.search(rf"\b{name}\b", template)]
    return [{}, *({name: on} for name in switches for on in (True, False))]


def _headers(processor: Any, mode: dict[str, bool]) -> list[list[int]]:
    """The generation prompt and, where it differs, the header of earlier assistant turns."""
    prompt = _tokens(processor, [_USER], mode)
    with_header = _tokens(processor, [_USER], mode, add_generation_prompt=True)
    header = with_header[_common(prompt, with_header) :]
    if not header:
        raise ExportError(
            "The chat template adds no generation prompt, so the position to steer is unknown; "
            "give the model a template that honors add_generation_prompt."
        )
    conversation = _tokens(processor, [_USER, _REPLY, _USER], mode)
    earlier = conversation[len(with_header) - len(header) :]
    shared = header[: _common(header, earlier)]
    if not shared:
        raise ExportError(
            "The chat template writes earlier assistant turns without the header of its "
            "generation prompt, so those turns could not be steered; use a consistent template."
        )
    return [header] if shared == header else [header, shared]


def _tokens(
    processor: Any, conversation: list[dict[str, Any]], mode: dict[str, bool], **options: bool
) -> list[int]:
    tokenizer = getattr(processor, "tokenizer", processor)
    if tokenizer is not processor:  # templates of multimodal models walk through typed parts
        conversation = [
            {**turn, "content": [{"type": "text", "text": turn["content"]}]}
            for turn in conversation
        ]
    text = processor.apply_chat_template(conversation, tokenize=False, **options, **mode)
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """Length of the longest common prefix."""
    pairs = enumerate(zip(a, b, strict=False))
    return next((i for i, (x, y) in pairs if x != y), min(len(a), len(b)))
