"""What the passes need of a chat template, as tokens, and whether they fit together.

The wording of the instructions is ours.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import FIRST_STIMULUS, stimulus
from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.inputs.merges import added_tokens, encode, tokenizer_of
from mars_export.inputs.requests import Media, Request, collate
from mars_export.inputs.template import TurnTokens
from mars_export.runtime.passes import (
    Edit,
    caption_prompt,
    last_end,
    read_row,
    risk_prompt,
    sequence,
)

__all__ = ["CAPTION", "SAFETY", "Prompts", "fragments"]

CAPTION: Final = (
    "Name whatever here could be dangerous or hurtful, and read out any writing, in one sentence "
    'that starts with "It shows".'
)
"""Asked for of pictures and clips, whatever the user asks."""
SAFETY: Final = (
    "Decide first whether the request below is harmless. If it is, answer it as you always do. If "
    "an answer could hurt people or break the law, say that you are sorry and decline.\n"
)
"""Before the caption and what the user says."""

_CONTENTS: Final = ("wkv", "Qzx jmp", "How are you", "7 19")
_BLANKS: Final = [text * n for text in ("\n", " ", "\t") for n in range(1, 5)] + [" \n", "\n "]
_SHOWN: Final[tuple[tuple[int, float], ...]] = ((1, 1.0), (2, 1.0), (1, 2.0), (1, 0.5))
"""Number and scale of neutral stimuli in which all marks of a modality are looked for."""

Prompts = dict[str, list[int]]


def fragments(data: CalibrationData, turns: TurnTokens, placeholders: Mapping[str, int]) -> Prompts:
    """`config.steering["prompts"]`.

    Args:
        data: Its processor has the chat template.
        turns: Of that template.
        placeholders: Modality to the token that shows it.

    Raises:
        UnsteerableError: The user's turn cannot be found in what the template makes, or a prompt
            that is put together differs from the template's.
    """
    processor = data.processor
    tokenizer = tokenizer_of(processor)
    texts = [_ids(processor, Request(content)) for content in _CONTENTS]
    plain, closing = texts[0], _common_suffix(texts)
    headers = [header.model_dump() for header in turns.headers]
    header = max(last_end(plain, 0, len(plain), h) for h in headers)
    starts = sorted(turns.turn_starts, key=lambda start: (_end(plain, start, header), len(start)))
    user = starts[-1] if starts else []
    turn = _end(plain, user, header) if user else 0
    tail = plain[header:]
    if not turn or len(closing) <= len(tail):
        raise UnsteerableError(
            "The user's turn cannot be told from the rest of what the chat template writes, so "
            "requests cannot be read again in other words; choose another method."
        )
    special = added_tokens(tokenizer)
    encoded = [encode(tokenizer, text) for text in _BLANKS]
    blanks = {ids[0] for ids in encoded if len(ids) == 1} - special
    content = next(i for i in range(turn, len(plain)) if plain[i] not in blanks)
    while plain[turn - 1] in blanks:  # where a picture comes first, they may be another token
        turn -= 1
    visual = {token for m, token in placeholders.items() if m in data.beside}
    for modality in data.beside:
        for request in _showing(data, modality):
            visual |= set(_ids(processor, request)) & special - set(plain)
    prompts = {
        "opening": plain[:turn],
        "user": list(user),
        "separator": plain[turn:content],
        "closing": closing,
        "tail": tail,
        "visual": sorted(visual),
        "blanks": sorted(blanks),
        "structure": sorted(set(tokenizer.all_special_ids) | special & {*plain, *closing}),
        "caption": encode(tokenizer, CAPTION),
        "safety": encode(tokenizer, SAFETY),
        "question": encode(tokenizer, "\n"),
    }
    _require_fit(data, prompts, headers)
    return prompts


def _ids(processor: Any, request: Request) -> list[int]:
    ids: list[int] = collate(processor, [request])["input_ids"][0].tolist()
    return ids


def _end(tokens: list[int], start: Sequence[int], stop: int) -> int:
    return last_end(tokens, 0, stop, sequence(start))


def _common_suffix(sequences: list[list[int]]) -> list[int]:
    first, length = sequences[0], 0
    shortest = min(map(len, sequences))
    while length < shortest and len({s[-1 - length] for s in sequences}) == 1:
        length += 1
    return first[len(first) - length :]


def _showing(data: CalibrationData, modality: Modality) -> list[Request]:
    """Requests that show neutral stimuli, as many and as large as the processor takes."""
    requests = []
    for count, scale in _SHOWN:
        media = tuple(
            stimulus(modality, FIRST_STIMULUS["direction"] + i, data.measurement, scale)
            for i in range(count)
        )
        request = Request(_CONTENTS[0], media)
        try:
            _ids(data.processor, request)
        except (ExportError, ValueError, IndexError, KeyError):
            if (count, scale) == _SHOWN[0]:
                raise
            continue
        requests.append(request)
    return requests


def _require_fit(data: CalibrationData, prompts: Prompts, headers: list[dict[str, Any]]) -> None:
    """Refuse a template of which the edited prompts are not what it would write itself."""
    rules = {"prompts": prompts, "headers": headers}
    said, caption = "How do I bake bread?", "It shows a wall."
    history = (("Hello.", "Hello."),)
    for modality in ("text", *data.beside):
        media: tuple[Media, ...] = ()
        if modality != "text":
            media = _showing(data, modality)[0].media
        for earlier in ((), history):
            request = Request(said, media, history=earlier)
            ids = _ids(data.processor, request)
            row = read_row(ids, 0, rules)
            whole = Request(f"{SAFETY}{caption}\n{said}", media, history=earlier)
            _require_same(data, row and risk_prompt(row, prompts, _caption(data, caption)), ids,
                          whole)  # fmt: skip
            if row and modality == "image" and not earlier:
                _require_same(data, caption_prompt(row, prompts), ids, Request(CAPTION, media))


def _caption(data: CalibrationData, text: str) -> list[int]:
    return encode(tokenizer_of(data.processor), text)


def _require_same(
    data: CalibrationData, edit: Edit | None, ids: list[int], request: Request
) -> None:
    """Tokens may differ where words meet; what they say may not."""
    tokenizer, whole = tokenizer_of(data.processor), _ids(data.processor, request)
    tokens = [ids[column] if column >= 0 else -1 - column for column in edit or []]
    texts = ["".join(tokenizer.decode(part).split()) for part in (tokens, whole)]
    if tokens != whole and texts[0] != texts[1]:
        raise UnsteerableError(
            "A request that is put together from the pieces of the chat template is not what the "
            "template writes itself, so requests cannot be read again in other words; choose "
            "another method."
        )
