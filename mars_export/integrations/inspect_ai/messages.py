"""Requests as conversations of inspect_ai, and back. The media lie in the messages, as data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from inspect_ai.model import (
    ChatMessageAssistant,
    ChatMessageSystem,
    ChatMessageUser,
    ContentAudio,
    ContentImage,
    ContentText,
    ContentVideo,
)

from mars_export.common.errors import ExportError
from mars_export.inputs.data_urls import clip_url, frames_of, opened, picture_url, sound_url
from mars_export.inputs.media import open_picture
from mars_export.inputs.requests import Media, Request, Turn
from mars_export.inputs.sounds import open_sound

__all__ = ["messages_of", "request_of"]


def messages_of(request: Request) -> list[Any]:
    """The conversation of a request."""
    told: list[Any] = [ChatMessageSystem(content=request.system)] if request.system else []
    for turn in request.turns:
        told.append(ChatMessageUser(content=_content(turn.prompt, turn.media)))
        told.append(ChatMessageAssistant(content=turn.answer))
    told.append(ChatMessageUser(content=_content(request.prompt, request.media)))
    if request.prefill:
        told.append(ChatMessageAssistant(content=request.prefill))
    return told


def _content(text: str, media: Sequence[Media]) -> Any:
    if not media:
        return text
    said = [ContentText(text=text)] if text else []
    return [*map(_part, media), *said]


def _part(medium: Media) -> Any:
    if medium.modality == "image":
        return ContentImage(image=picture_url(medium.data))
    if medium.modality == "video":
        return ContentVideo(video=clip_url(medium.data), format="mp4")
    return ContentAudio(audio=sound_url(medium.data), format="wav")


def request_of(messages: Sequence[Any]) -> Request:
    """The request of a conversation that ends with a user, or inside an answer.

    Raises:
        ExportError: It is none, or holds something else than text and media as data.
    """
    system = [m.text for m in messages if m.role == "system"]
    turns = [m for m in messages if m.role != "system"]
    prefill = turns.pop().text if turns and turns[-1].role == "assistant" else ""
    roles = [m.role for m in turns]
    if roles != ["user" if place % 2 == 0 else "assistant" for place in range(len(turns))] or (
        len(turns) % 2 == 0
    ):
        raise ExportError(f"a conversation of {', '.join(roles) or 'no turns'} cannot be asked")
    history = tuple(
        Turn(asked.text, answered.text, _media(asked))
        for asked, answered in zip(turns[:-1:2], turns[1::2], strict=True)
    )
    return Request(turns[-1].text, _media(turns[-1]), "\n\n".join(system), history, prefill)


def _media(message: Any) -> tuple[Media, ...]:
    parts = [] if isinstance(message.content, str) else message.content
    return tuple(_medium(part) for part in parts if part.type != "text")


def _medium(part: Any) -> Media:
    if part.type == "image":
        return Media("image", open_picture(opened(part.image), "a picture"))
    if part.type == "video":
        return Media("video", frames_of(opened(part.video)))
    if part.type == "audio":
        return Media("audio", open_sound(opened(part.audio), "a sound"))
    raise ExportError(f"content of the type {part.type!r} cannot be asked; leave it out")
