"""Tokens that a tokenizer makes of the end of a header and the text behind it."""

from collections.abc import Iterator
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.header import Header

__all__ = ["added_tokens", "encode", "merged_headers", "tokenizer_of"]

_LINE_FEED: Final = "\n"


def tokenizer_of(processor: Any) -> Any:
    """The tokenizer of a processor, or the tokenizer itself."""
    return getattr(processor, "tokenizer", processor)


def encode(tokenizer: Any, text: str) -> list[int]:
    """Token ids of rendered text, to which nothing is added."""
    ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
    return ids


def added_tokens(tokenizer: Any) -> set[int]:
    """Tokens that are cut out of a text before it is tokenized, and so never merge."""
    return {*tokenizer.all_special_ids, *tokenizer.added_tokens_decoder}


def merged_headers(tokenizer: Any, text: str, header: list[int]) -> list[Header]:
    """A header with every token that its end can become where text follows.

    Tried are all tokens of the vocabulary that begin as the header ends and go on. A token that
    begins before the header's last one leaves a shorter prefix, and so a further header.

    Args:
        tokenizer: Fast or slow.
        text: Rendered text that holds the header; its last place counts.
        header: The header's tokens.

    Returns:
        First the header itself, whose own last token is the first of its ends.

    Raises:
        ExportError: The tokenizer does not make the header's tokens of the text.
    """
    candidates = list(_candidates(tokenizer, header))
    if not candidates:
        return [Header(prefix=header[:-1], ends=header[-1:])]
    text, before = _up_to_header(tokenizer, text, header)
    ends: dict[tuple[int, ...], set[int]] = {}
    line_feed = encode(tokenizer, f"a{_LINE_FEED}")[-1]
    # Some tokenizers make a token of white space only where a line ends behind it.
    for more, behind in (("", []), (_LINE_FEED, [line_feed])):
        texts = [text + following + more for _, following in candidates]
        rows = tokenizer(texts, add_special_tokens=False)["input_ids"]
        for (token, _), ids in zip(candidates, rows, strict=True):
            start, stop = len(before), len(ids) - len(behind) - 1
            if ids[:start] == before and ids[stop:] == [token, *behind] and stop >= start:
                ends.setdefault(tuple(ids[start:stop]), set()).add(token)
    same = ends.pop(tuple(header[:-1]), set())
    return [
        Header(prefix=header[:-1], ends=[header[-1], *sorted(same)]),
        *(Header(prefix=list(prefix), ends=sorted(ends[prefix])) for prefix in sorted(ends)),
    ]


def _up_to_header(tokenizer: Any, text: str, header: list[int]) -> tuple[str, list[int]]:
    """The text up to the header's end, and its tokens before the header.

    It begins at the last added token, if there is one, since nothing before that matters.
    """
    ids, size = encode(tokenizer, text), len(header)
    places = range(len(ids) - size, -1, -1)
    start = next((i for i in places if ids[i : i + size] == header), None)
    ids = [] if start is None else ids[: start + size]
    end = next((n for n in range(len(text), -1, -1) if encode(tokenizer, text[:n]) == ids), None)
    if start is None or end is None:
        raise ExportError(
            f"The tokenizer does not make the tokens {header} of the chat template's assistant "
            "header, so the position to steer is unknown; give the model the tokenizer that its "
            "chat template was made for."
        )
    special = added_tokens(tokenizer)
    for i in range(start, -1, -1):
        if ids[i] in special:
            cut = max(0, text.rfind(tokenizer.convert_ids_to_tokens(ids[i]), 0, end))
            if encode(tokenizer, text[cut:end]) == ids[i:]:
                return text[cut:end], ids[i:start]
    return text[:end], ids[:start]


def _candidates(tokenizer: Any, header: list[int]) -> Iterator[tuple[int, str]]:
    """Tokens that begin with an ending of the header, and the text that they have beyond it."""
    special = added_tokens(tokenizer)
    first = next((i for i in range(len(header), 0, -1) if header[i - 1] in special), 0)
    pieces = tokenizer.convert_ids_to_tokens(header[first:])
    joined = "".join(pieces)
    endings = tuple(joined[i:] for i in range(len(joined)))
    for piece, token in tokenizer.get_vocab().items() if endings else ():
        if piece.startswith(endings) and token not in special:
            for ending in endings:
                if piece.startswith(ending) and piece != ending:
                    following = piece.removeprefix(ending)
                    yield from ((token, text) for text in _texts(tokenizer, pieces[-1], following))


def _texts(tokenizer: Any, last: str, following: str) -> set[str]:
    """What a part of a piece may stand for behind the header's last piece."""
    alone = tokenizer.convert_tokens_to_string([last])
    together = tokenizer.convert_tokens_to_string([last, following])
    # Where it does not begin with `alone`, nothing is removed, and what follows is unknown.
    return {following, together.removeprefix(alone)} - {together}
