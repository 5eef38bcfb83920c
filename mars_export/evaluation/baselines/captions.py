"""Captions that a model writes itself, and requests with them instead of pictures and clips."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Final

from mars_export.evaluation.generation import Loaded
from mars_export.evaluation.overhead import Cost
from mars_export.inputs.requests import Media, Request

__all__ = ["captions", "described"]

_LONGEST: Final = 40
"""Tokens of a caption."""

_NAMES: Final = {"image": "picture", "video": "video", "audio": "recording"}
"""What a modality is called in a prompt."""


def captions(
    loaded: Loaded, requests: Sequence[Request], ask: Callable[[Request, str], str]
) -> tuple[list[list[str]], list[Cost]]:
    """One caption of every medium of each request, in order, and what they took.

    Args:
        loaded: Writes them, greedily, steering off.
        requests: In the batches of as many.
        ask: The prompt for a request and what its medium is called.
    """
    asked: list[tuple[int, int, Request]] = [
        (row, place, Request(ask(request, _NAMES[medium.modality]), (medium,)))
        for row, request in enumerate(requests)
        for place, medium in enumerate(request.conversation_media)
    ]
    asked.sort(key=lambda entry: entry[2].modality)  # a batch holds one
    written = [[""] * len(request.conversation_media) for request in requests]
    costs = []
    for part in _batches(asked, len(requests)):
        inputs = loaded.inputs([request for _, _, request in part])
        answers = loaded.answer(inputs, _LONGEST, steered=False)
        costs.append(answers.cost)
        for (row, place, _), text in zip(part, answers.texts, strict=True):
            written[row][place] = " ".join(text.split())
    return written, costs


def described(request: Request, texts: Sequence[str]) -> Request:
    """The request with the captions of its media, in order, in their places."""
    rest = iter(texts)

    def words(media: Sequence[Media], prompt: str) -> str:
        lines = [f"[{_NAMES[m.modality].capitalize()}: {next(rest)}]" for m in media]
        return "\n".join([*lines, prompt])

    history = tuple(
        turn._replace(prompt=words(turn.media, turn.prompt), media=()) for turn in request.turns
    )
    return replace(request, history=history, prompt=words(request.media, request.prompt), media=())


def _batches(
    asked: Sequence[tuple[int, int, Request]], size: int
) -> Iterator[Sequence[tuple[int, int, Request]]]:
    start = 0
    while start < len(asked):
        modality = asked[start][2].modality
        part = [e for e in asked[start : start + size] if e[2].modality == modality]
        yield part
        start += len(part)
