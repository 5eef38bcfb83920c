"""One question to a steered checkpoint, answered with steering off and on."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mars_export.checkpoint.derived import read_steering
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.missing import missing_file
from mars_export.common.paths import exists, is_file
from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.generation import Loaded, load, load_calibrated
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import REFERENCE, STEERED
from mars_export.families.loading import pick_device
from mars_export.families.placement import Device
from mars_export.inputs.media import open_picture, read_frames
from mars_export.inputs.requests import Media, Request, mixes
from mars_export.inputs.sounds import open_sound
from mars_export.methods.base import Decision

__all__ = ["Replies", "Reply", "ask"]


class Reply(Record):
    """An answer, and what steering did where it begins."""

    steering: str
    """`off` or `on`."""
    answer: str
    cut: bool
    """Whether it reached the token limit without an end token."""
    decision: Decision | None = None
    """The last of `model.steering.last`; None with steering off."""
    push: float | None = None
    """Length of the change over that of the residual stream there; None with steering off."""


class Replies(Record):
    """The answers to one request, greedy."""

    question: str
    shown: list[str]
    """Files of the request, in order."""
    replies: list[Reply]
    """With steering off, then on."""


def ask(
    directory: Path,
    question: str,
    images: Sequence[Path] = (),
    videos: Sequence[Path] = (),
    sounds: Sequence[Path] = (),
    *,
    max_new_tokens: int = EvaluationOptions().max_new_tokens,
    device: Device = "auto",
) -> Replies:
    """Ask a steered checkpoint one question with steering off and on.

    Args:
        directory: Steered checkpoint, with or without a manifest.
        question: What the user writes.
        images: Picture files, shown before the question.
        videos: Video files or folders of frames, shown after the pictures.
        sounds: Sound files; none beside pictures or videos, which raises.
        max_new_tokens: Longest answer, in tokens.
        device: `auto`, the name of a torch device, or another placement.

    Raises:
        ExportError: The directory is not steered or does not load, a file cannot be read, or the
            checkpoint does not take what is shown.
    """
    rules, _ = read_steering(directory)
    media = (*map(_picture, images), *map(_video, videos), *map(_sound, sounds))
    request = Request(question, media)
    if mixes(medium.modality for medium in media):
        raise ExportError(
            "--audio: steering is not calibrated for sounds beside pictures or videos; give "
            "--audio alone"
        )
    for medium in request.media:
        if medium.modality not in rules["modalities"]:
            raise ExportError(
                f"{directory} was not calibrated for {medium.modality}: it takes "
                f"{', '.join(rules['modalities'])}"
            )
    loaded = _loaded(directory, rules["modalities"], pick_device(device))
    inputs = loaded.inputs([request])
    replies = []
    for name in (REFERENCE, STEERED):
        answers = loaded.answer(inputs, max_new_tokens, steered=name == STEERED, factor=1.0)
        (text,), (cut,), (decision,) = answers.texts, answers.cut, answers.decisions
        (push,) = answers.pushes
        replies.append(Reply(steering=name, answer=text, cut=cut, decision=decision, push=push))
    shown = [str(path) for path in (*images, *videos, *sounds)]
    return Replies(question=question, shown=shown, replies=replies)


def _picture(path: Path) -> Media:
    if not is_file(path):
        raise ExportError(f"--image: {missing_file(path)}")
    return Media("image", open_picture(path, str(path)))


def _video(path: Path) -> Media:
    if not exists(path):
        raise ExportError(f"--video: {missing_file(path)}")
    return Media("video", read_frames(path, str(path)))


def _sound(path: Path) -> Media:
    if not is_file(path):
        raise ExportError(f"--audio: {missing_file(path)}")
    return Media("audio", open_sound(path, str(path)))


def _loaded(directory: Path, modalities: Sequence[Modality], device: Device) -> Loaded:
    """In the quantization that it was calibrated for, where a manifest says which."""
    if (directory / MANIFEST_NAME).is_file():
        return load_calibrated(directory, Manifest.read(directory).calibration, device)
    return load(directory, modalities, device, None)
