"""The single way to turn requests into model inputs, used by calibration and evaluation alike."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import input_errors, one_line
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.inputs.chat_template import require_template
from mars_export.inputs.merges import tokenizer_of
from mars_export.inputs.sounds import SHORTEST, longest, padding

if TYPE_CHECKING:
    from PIL.Image import Image
    from transformers import BatchFeature

__all__ = [
    "CLIP_FPS",
    "PLAIN_REQUEST",
    "Drawn",
    "Media",
    "Request",
    "Turn",
    "collate",
    "extent",
    "messages",
    "mixes",
    "modality_of",
    "rendered",
    "sampling_rate",
    "size_class",
    "template_problem",
]

_QUOTED: Final = 60
"""Characters of a prompt in a message."""
CLIP_FPS: Final = 2.0
"""Frames a second that a clip is taken to have; some families write time stamps from it."""


_AROUND: Final = 1024
"""Characters that stand for what is around a prompt: chat template, pictures."""


def extent(characters: int) -> int:
    """Size of a request whose prompts have so many characters, in characters."""
    return characters + _AROUND


def size_class(characters: int) -> int:
    """The same for requests that may share a batch: none is more than twice as large as another.

    A batch is padded to its longest request, so a very long one would make the others as long. Up
    to 1023 characters are one class.
    """
    return extent(characters).bit_length()


def modality_of(shown: Iterable[Modality], order: Sequence[Modality] = MODALITIES) -> Modality:
    """The modality that a request counts as: the last one in `order` of those that it shows.

    Args:
        shown: Modalities of its media; `text` for none.
        order: That of the steering tensors of a checkpoint, or of the package.

    Raises:
        ValueError: A modality is not in `order`.
    """
    return max(shown, key=list(order).index, default="text")


def mixes(shown: Iterable[Modality]) -> bool:
    """Whether sounds stand beside pictures or clips, which a steered checkpoint refuses."""
    kinds = set(shown)
    return "audio" in kinds and not kinds.isdisjoint(("image", "video"))


@dataclass(frozen=True)
class Media:
    """Something that a request shows beside its prompt.

    Attributes:
        modality: `image`, `video`, ...; never `text`.
        data: For an image an RGB picture, for a video the tuple of its RGB frames, for audio a
            `Sound`.
        kind: Of a neutral stimulus, a name of `KINDS`; empty for anything else.
    """

    modality: Modality
    data: Any
    kind: str = ""


class Drawn(Media):
    """A medium that is made when a batch needs it: requests that wait hold no pixels."""

    _make: Callable[[], Any]

    def __init__(self, modality: Modality, make: Callable[[], Any], kind: str) -> None:
        """make: gives the same data each time."""
        for name, value in {"modality": modality, "_make": make, "kind": kind}.items():
            object.__setattr__(self, name, value)

    @property
    def data(self) -> Any:
        """Made anew each time."""
        return self._make()

    def made(self) -> Media:
        """With the data, for a batch."""
        return Media(self.modality, self.data, self.kind)


class Turn(NamedTuple):
    """An earlier turn of a conversation.

    prompt: what the user wrote. answer: what the model answered. media: what was shown before the
    prompt, in order.
    """

    prompt: str
    answer: str
    media: tuple[Media, ...] = ()


@dataclass(frozen=True)
class Request:
    """One user turn: a prompt, and what is shown before it.

    Attributes:
        prompt: What the user writes; nothing where a sound says it.
        media: What is shown, in order.
        system: System prompt; empty for none.
        history: Earlier turns, each a `Turn`, or a pair of prompt and answer for one without media.
        prefill: Beginning of the answer, as if the model had written it.
    """

    prompt: str
    media: tuple[Media, ...] = ()
    system: str = ""
    history: tuple[Turn | tuple[str, str], ...] = ()
    prefill: str = ""

    @property
    def characters(self) -> int:
        """Number of characters that are said in it, earlier turns included."""
        earlier = sum(len(turn.prompt) + len(turn.answer) for turn in self.turns)
        return len(self.system) + earlier + len(self.prompt) + len(self.prefill)

    @property
    def turns(self) -> list[Turn]:
        """Its earlier turns."""
        return [Turn(*turn) for turn in self.history]

    @property
    def conversation_media(self) -> tuple[Media, ...]:
        """What the whole conversation shows, in order: a model still sees that of earlier turns."""
        return (*(medium for turn in self.turns for medium in turn.media), *self.media)

    @property
    def modality(self) -> Modality:
        """What the conversation counts as, in the order of the package."""
        return modality_of(medium.modality for medium in self.conversation_media)

    def shown(self, modality: Modality) -> list[Any]:
        """Data of all media of one modality in the conversation, in order."""
        return [medium.data for medium in self.conversation_media if medium.modality == modality]

    def made(self) -> Request:
        """With the data of all that it shows."""
        if not any(isinstance(medium, Drawn) for medium in self.conversation_media):
            return self

        def made(media: tuple[Media, ...]) -> tuple[Media, ...]:
            return tuple(m.made() if isinstance(m, Drawn) else m for m in media)

        turns = tuple(turn._replace(media=made(turn.media)) for turn in self.turns)
        return replace(self, media=made(self.media), history=turns)

    @property
    def pictures(self) -> tuple[Image, ...]:
        """Every picture and every frame, for judges that see."""
        frames = (frame for video in self.shown("video") for frame in video)
        return (*self.shown("image"), *frames)


PLAIN_REQUEST: Final = Request("How are you?")
"""A request that stands for all that are text alone."""


def messages(request: Request, rate: int | None = None) -> list[dict[str, Any]]:
    """The request as a conversation in the chat format of multimodal processors.

    Args:
        request: What is asked.
        rate: Samples a second that its sounds are brought to; None leaves them as they are.
    """
    if rate is not None:
        request = _resampled(request, rate)
    conversation = [_message("system", request.system)] if request.system else []
    for turn in request.turns:
        conversation.append(_message("user", turn.prompt, turn.media))
        conversation.append(_message("assistant", turn.answer))
    conversation.append(_message("user", request.prompt, request.media))
    if request.prefill:
        conversation.append(_message("assistant", request.prefill))
    return conversation


def _message(role: str, text: str, media: Sequence[Media] = ()) -> dict[str, Any]:
    said = [{"type": "text", "text": text}] if text or not media else []
    return {"role": role, "content": [*map(_part, media), *said]}


def _part(medium: Media) -> dict[str, Any]:
    data = medium.data
    if medium.modality == "video":
        data = list(data)
    elif medium.modality == "audio":
        data = data.samples
    return {"type": medium.modality, medium.modality: data}


def _resampled(request: Request, rate: int) -> Request:
    """The request with its sounds at so many samples a second."""

    def brought(media: tuple[Media, ...]) -> tuple[Media, ...]:
        return tuple(
            replace(medium, data=medium.data.at(rate)) if medium.modality == "audio" else medium
            for medium in media
        )

    turns = tuple(turn._replace(media=brought(turn.media)) for turn in request.turns)
    return replace(request, media=brought(request.media), history=turns)


def collate(processor: Any, requests: Sequence[Request]) -> BatchFeature:
    """Render requests with the chat template as one left-padded batch.

    Left padding puts the last prompt token of every row at index -1, whose logits are those of the
    first answer token. A tokenizer without a pad token pads with another one. The processor and its
    tokenizer are left as they were.

    Args:
        processor: A Transformers processor, or the tokenizer of a text-only model, with a chat
            template.
        requests: At least one request, all of the same modality and all with or all without
            prefill.

    Returns:
        `input_ids` and `attention_mask` (B, T) int64, with what the processor makes of the media.

    Raises:
        ExportError: The processor takes no video or audio, has no chat template, refuses a request,
            or takes no sound so long or so short.
        ValueError: `requests` is empty or mixes modalities or forms.
    """
    modalities = {request.modality for request in requests}
    if len(modalities) != 1:
        raise ValueError(f"a batch holds one modality, got {sorted(modalities)}")
    if len({bool(request.prefill) for request in requests}) != 1:
        raise ValueError("a batch mixes requests with and without prefill")
    require_template(processor)
    requests = [request.made() for request in requests]
    what = f"the processor refuses the request {requests[0].prompt[:_QUOTED]!r}"
    if len(requests) > 1:
        what += f" or one of the {len(requests) - 1} after it"
    with input_errors(what, "correct it or leave it out"), _pad_token(tokenizer_of(processor)):
        if _is_tokenizer(processor):
            return _collate_text(processor, requests)
        return _collate_media(processor, requests)


@contextmanager
def _pad_token(tokenizer: Any) -> Iterator[None]:
    """While open, a tokenizer without a pad token has one. Padding is masked, so any will do."""
    if tokenizer.pad_token_id is not None:
        yield
        return
    tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    try:
        yield
    finally:
        tokenizer.pad_token = None


def _collate_media(processor: Any, requests: Sequence[Request]) -> BatchFeature:
    options: dict[str, Any] = {"padding": True, "padding_side": "left"}
    if requests[0].shown("video"):
        options["videos_kwargs"] = _video_options(processor, requests)
    rate = sampling_rate(processor)
    if rate is None and requests[0].shown("audio"):
        raise ExportError(f"{type(processor).__name__} takes no audio; leave audio out.")
    _require_whole(processor, requests)
    sounds = (sound for request in requests for sound in request.shown("audio"))
    options["audio_kwargs"] = padding(processor, sounds)
    batch: BatchFeature = processor.apply_chat_template(
        [messages(request, rate) for request in requests],
        **_ending(requests),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        processor_kwargs=options,
    )
    return batch


def _require_whole(processor: Any, requests: Sequence[Request]) -> None:
    """Refuse sounds of which the processor would cut something off, or make no token.

    Raises:
        ExportError: There is one.
    """
    most = longest(processor)
    for seconds in (sound.seconds for request in requests for sound in request.shown("audio")):
        if most is not None and seconds > most:
            raise ExportError(
                f"a sound of {seconds:.1f} s is longer than the {most:g} s that "
                f"{type(processor).__name__} takes; cut it into shorter ones"
            )
        if seconds < SHORTEST:
            raise ExportError(f"a sound of {seconds:.2g} s is shorter than {SHORTEST:g} s")


def sampling_rate(processor: Any) -> int | None:
    """Samples a second that a processor takes; None if it takes no audio."""
    extractor = getattr(processor, "feature_extractor", None)
    return getattr(extractor, "sampling_rate", None)


def _is_tokenizer(processor: Any) -> bool:
    from transformers import PreTrainedTokenizerBase

    return isinstance(processor, PreTrainedTokenizerBase)


def _collate_text(tokenizer: Any, requests: Sequence[Request]) -> BatchFeature:
    """A text-only model has a tokenizer alone, whose templates take plain strings."""
    from transformers import BatchFeature

    if any(request.modality != "text" for request in requests):
        raise ExportError(f"{type(tokenizer).__name__} takes text alone; leave media out.")
    batch = tokenizer.apply_chat_template(
        [[_plain(turn) for turn in messages(request)] for request in requests],
        **_ending(requests),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        padding=True,
        tokenizer_kwargs={"padding_side": "left"},
    )
    return BatchFeature(dict(batch))


def _plain(turn: dict[str, Any]) -> dict[str, str]:
    return {"role": turn["role"], "content": turn["content"][0]["text"]}


def _ending(requests: Sequence[Request]) -> dict[str, bool]:
    """How a conversation ends: with an open assistant turn, or inside one that was begun."""
    begun = bool(requests[0].prefill)
    return {"add_generation_prompt": not begun, "continue_final_message": begun}


def _video_options(processor: Any, requests: Sequence[Request]) -> dict[str, Any]:
    """Frames are used as given, with stated time stamps and the coming default of the pixel cap."""
    video_processor = getattr(processor, "video_processor", None)
    if video_processor is None:
        raise ExportError(f"{type(processor).__name__} takes no video; leave video out.")
    options: dict[str, Any] = {
        "do_sample_frames": False,
        "video_metadata": [
            [_metadata(len(frames)) for frames in request.shown("video")] for request in requests
        ],
    }
    if hasattr(video_processor, "cap_pixels_per_frame"):
        options["cap_pixels_per_frame"] = True
    return options


def _metadata(frames: int) -> dict[str, Any]:
    return {
        "total_num_frames": frames,
        "fps": CLIP_FPS,
        "duration": frames / CLIP_FPS,
        "frames_indices": list(range(frames)),
    }


def template_problem(processor: Any, request: Request) -> str:
    """Why a chat template cannot write what a request adds to its words; empty if it can."""
    plain = Request(request.prompt, request.media[:1])
    if not (request.system or request.history or request.prefill or request.media[1:]):
        return ""
    try:
        text = rendered(processor, request)
    except Exception as error:  # templates raise what they like
        return f"the chat template refuses it: {one_line(error)}"
    return "the chat template leaves it out" if text == rendered(processor, plain) else ""


def rendered(processor: Any, request: Request) -> str:
    """The conversation as the template writes it; a tokenizer's takes plain strings."""
    conversation = messages(request)
    if getattr(processor, "tokenizer", None) is None and not request.media:
        conversation = [{**turn, "content": turn["content"][-1]["text"]} for turn in conversation]
    text = processor.apply_chat_template(
        conversation,
        tokenize=False,
        add_generation_prompt=not request.prefill,
        continue_final_message=bool(request.prefill),
    )
    return str(text)
