"""What a model cannot be asked, found with its processor and configuration before it is loaded."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import reason
from mars_export.common.problems import Problems
from mars_export.families import STEERED_TYPE
from mars_export.inputs.merges import added_tokens, tokenizer_of
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.requests import Media, Request, Turn, collate

__all__ = ["Asked", "check_prompts", "check_requests", "context_length", "context_of"]

_ENDLESS: Final = 10**9
_ROWS: Final = 256
"""Prompts that are tokenized at once."""
_CONVERSATION: Final = (Request("a", history=(Turn("b", "c"),)), Request("a"))
_PLACEHOLDERS: Final = ("image_token", "video_token", "audio_token")


class Asked(NamedTuple):
    """A request that a model will get.

    where: it stands, for messages; prompt: its words. open: gives it with its media, or raises
    `ExportError`. alike: the same word for requests whose media have the same sizes, so that one
    stands for all; empty if that is not known.
    """

    where: str
    prompt: str
    open: Callable[[], Request]
    alike: str = ""


def context_length(config: Any) -> int:
    """Tokens that a model takes; without end where its configuration does not say.

    Args:
        config: A Transformers configuration.
    """
    text = config.get_text_config() if hasattr(config, "get_text_config") else config
    length = getattr(text, "max_position_embeddings", None)
    return length if isinstance(length, int) and length > 0 else _ENDLESS


def context_of(raw: Mapping[str, Any]) -> int:
    """The same from the config.json of a base or of a steered checkpoint."""
    from transformers import CONFIG_MAPPING

    kind = str(raw.get("model_type")).removeprefix(STEERED_TYPE)
    if kind not in CONFIG_MAPPING:
        return _ENDLESS
    config = CONFIG_MAPPING[kind].from_dict({**copy.deepcopy(raw), "model_type": kind})
    return context_length(config)


def check_prompts(processor: Any, context: int, sets: PromptSets) -> None:
    """Refuse calibration prompts that hold special tokens, or are longer than the context.

    Args:
        processor: A Transformers processor or tokenizer, with a chat template.
        context: Tokens that the model takes.
        sets: The prompts.

    Raises:
        ExportError: There are such prompts; names file and lines.
    """
    problems = Problems()
    around = collate(processor, [Request("a")])["input_ids"].shape[1]
    for prompts in (sets.harmful, sets.harmless):
        texts = [*prompts.direction, *prompts.decision, *prompts.check]
        places = [prompts.places.get(text, prompts.name) for text in texts]
        lengths = _lengths(processor, texts, places, problems)
        for length, place in zip(lengths, places, strict=True):
            _check_length(around + length, context, place, problems)
    problems.refuse()


def check_requests(processor: Any, context: int, asked: Sequence[Asked]) -> None:
    """Refuse requests that the model cannot be asked.

    Every medium is opened. Processors refuse media for their sizes, so of each combination of
    sizes one request is run through the processor, that with the longest prompt.

    Args:
        processor: A Transformers processor or tokenizer, with a chat template.
        context: Tokens that the model takes.
        asked: All that it will be asked.

    Raises:
        ExportError: A medium cannot be read or is refused by the processor, or a prompt is as for
            `check_prompts`; names the records.
    """
    problems = Problems()
    places = [one.where for one in asked]
    lengths = _lengths(processor, [one.prompt for one in asked], places, problems)
    groups: dict[object, list[tuple[int, Asked]]] = defaultdict(list)
    for length, one in zip(lengths, asked, strict=True):
        for sizes in [one.alike] if one.alike else problems.attempt(one.where, _sizes_of(one)):
            groups[sizes].append((length, one))
    problems.refuse()
    for group in groups.values():
        _check_group(processor, context, group, problems)
    problems.refuse()


def _check_group(
    processor: Any,
    context: int,
    group: Sequence[tuple[int, Asked]],
    problems: Problems,
) -> None:
    length, longest = max(group, key=lambda pair: pair[0])
    request = longest.open()
    try:
        whole = collate(processor, [request])["input_ids"].shape[1]
    except MemoryError:
        raise
    except Exception as error:  # processors raise what they like
        if not request.conversation_media:
            raise
        said, hint = _said(error)
        for _, one in group:
            what = f"{type(processor).__name__} refuses {_named(request)}: {said}"
            problems.add(one.where, what, hint)
        return
    for own, one in group:
        _check_length(whole - length + own, context, one.where, problems)


def _said(error: Exception) -> tuple[str, str]:
    """Why a request was refused, and what to do."""
    if error.__cause__ is None and isinstance(error, ExportError):
        said, _, hint = str(error).rpartition("; ")
        return (said, hint) if said else (hint, "replace it")
    return reason(error.__cause__ or error), "replace it"


def _sizes_of(asked: Asked) -> Callable[[], object]:
    """What a processor may refuse media for: kinds, frames, widths, heights and durations."""

    def sizes() -> object:
        media = asked.open().conversation_media
        return tuple((one.modality, *_size(one)) for one in media)

    return sizes


def _size(medium: Media) -> tuple[object, ...]:
    if medium.modality == "audio":
        return len(medium.data.samples), medium.data.rate
    return tuple(picture.size for picture in _pictures(medium.data))


def _pictures(data: Any) -> Sequence[Any]:
    return data if isinstance(data, tuple) else (data,)


def _named(request: Request) -> str:
    """Media in words, for example `a picture of 1200x4`."""
    return ", ".join(map(_told, request.conversation_media))


def _told(medium: Media) -> str:
    if medium.modality == "audio":
        return f"a sound of {medium.data.seconds:.1f} s at {medium.data.rate} Hz"
    pictures = _pictures(medium.data)
    sizes = sorted({f"{picture.width}x{picture.height}" for picture in pictures})
    kind = "a picture" if medium.modality == "image" else f"a clip with {len(pictures)} frames"
    return f"{kind} of {' and '.join(sizes)}"


def _check_length(tokens: int, context: int, place: str, problems: Problems) -> None:
    if tokens > context:
        what = f"{tokens} tokens with the chat template, and the model takes {context}"
        problems.add(place, what, "shorten it")


def _lengths(
    processor: Any, texts: Sequence[str], places: Sequence[str], problems: Problems
) -> list[int]:
    """Tokens of each prompt; those with special tokens are noted as problems."""
    tokenizer = tokenizer_of(processor)
    special = _special(processor)
    lengths = []
    for start in range(0, len(texts), _ROWS):
        part = list(texts[start : start + _ROWS])
        rows = tokenizer(part, add_special_tokens=False, verbose=False)["input_ids"]
        for text, ids, place in zip(part, rows, places[start : start + _ROWS], strict=True):
            words = {special[token] for token in set(ids) & special.keys()}
            words |= {str(getattr(processor, name, None) or "") for name in _PLACEHOLDERS}
            held = sorted(word for word in words if word and word in text)
            if held:
                what = f"the prompt holds {held[0]}, a special token of the model"
                problems.add(place, what, "leave it out, or put a blank into it")
            lengths.append(len(ids))
    return lengths


def _special(processor: Any) -> dict[int, str]:
    """Tokens that a prompt must not hold: special ones, and what the chat template writes.

    White space is none, and what the tokenizer makes of unknown characters is told by its text.
    """
    tokenizer = tokenizer_of(processor)
    written: set[int] = set()
    for request in _CONVERSATION:
        try:
            written.update(collate(processor, [request])["input_ids"][0].tolist())
        except Exception:  # a template without earlier turns; the plain request is asked anyway
            continue
    marked = {token for token, added in tokenizer.added_tokens_decoder.items() if added.special}
    tokens = marked | set(tokenizer.all_special_ids) | (written & added_tokens(tokenizer))
    texts = {token: str(tokenizer.convert_ids_to_tokens(token)) for token in tokens}
    return {token: text for token, text in texts.items() if text.strip()}
