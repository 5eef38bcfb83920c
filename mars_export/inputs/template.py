"""Where an assistant turn begins, in the tokens of the model's own chat template."""

import re
from collections.abc import Sequence
from typing import Any, Final

from mars_export.common.errors import ExportError

__all__ = ["header_suffixes"]

_USER: Final = {"role": "user", "content": "a"}
_REPLY: Final = {"role": "assistant", "content": "b"}
_SWITCHES: Final = ("enable_thinking", "thinking")
"""Template variables that turn a model's thinking on and off."""


def header_suffixes(processor: Any) -> list[list[int]]:
    """Token sequences that end an assistant header, read off the chat template.

    The generation prompt is one, for example `<|im_start|>assistant` and a line feed. A template
    that opens a thought in the generation prompt but not in earlier turns has two.

    Args:
        processor: A Transformers processor, or the tokenizer of a text-only model, with a chat
            template.

    Returns:
        One list of token ids per distinct header, the generation prompt of the default mode first.

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
        for suffix in _suffixes(processor, mode):
            if suffix not in headers:
                headers.append(suffix)
    return headers


def _modes(template: str) -> list[dict[str, bool]]:
    """Settings of the template's thinking switch, its default first."""
    switches = [name for name in _SWITCHES if re.search(rf"\b{name}\b", template)]
    return [{}, *({name: on} for name in switches for on in (True, False))]


def _suffixes(processor: Any, mode: dict[str, bool]) -> list[list[int]]:
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
