"""A steered checkpoint that answers the page: loaded once, with steering off and on in turn."""

from __future__ import annotations

import threading
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Final

from mars_export.checkpoint.derived import read_steering
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import is_out_of_memory, is_panic, reason
from mars_export.common.vocabulary import Modality
from mars_export.demo.clouds import Scale, scale_of
from mars_export.demo.streaming import streamed
from mars_export.demo.turns import Exchange, Reading, history_of
from mars_export.evaluation.generation import (
    Answers,
    Loaded,
    hosted_rules,
    load,
)
from mars_export.evaluation.report import REFERENCE, STEERED
from mars_export.evaluation.selfcheck import load_checked
from mars_export.families.loading import free_memory, pick_device
from mars_export.inputs.limits import Asked, check_requests, context_length
from mars_export.inputs.requests import Media, Request, mixes

__all__ = ["Subject", "open_subject"]

_MOST: Final = 8
"""Media of a turn that are left out in turn, to see what each did."""
_MIXED: Final = (
    "steering is not calibrated for sounds beside pictures or clips; show them in conversations of "
    "their own"
)


@dataclass(frozen=True)
class Subject:
    """A loaded steered checkpoint, and how its requests are shown.

    Attributes:
        name: For people.
        loaded: Model and processor.
        manifest: Of the checkpoint; None for one that was trained on and saved again.
        modalities: What it takes.
        scale: Where its requests lie; None where the method has no such place.
        max_new_tokens: Longest answer.
    """

    name: str
    loaded: Loaded
    manifest: Manifest | None
    modalities: tuple[Modality, ...]
    scale: Scale | None
    max_new_tokens: int
    _busy: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def exchange(
        self, prompt: str, media: tuple[Media, ...], earlier: tuple[Exchange, ...] = ()
    ) -> Iterator[Exchange]:
        """Answer one turn with steering off, then on; each step shows what is known so far.

        Every arm goes on from its own answers.

        Args:
            prompt: What the user writes.
            media: What is shown before it.
            earlier: The turns before, oldest first.

        Raises:
            ExportError: The checkpoint cannot be asked this, in one line.
        """
        exchange = Exchange(prompt, media)
        requests = {
            arm: Request(prompt, media, history=history_of(earlier, arm))
            for arm in (REFERENCE, STEERED)
        }
        try:
            for request in requests.values():
                self._require_askable(request)
            yield exchange
            for arm, request in requests.items():
                exchange = yield from self._arm(exchange, arm, request)
            for index in range(min(len(media), _MOST)):
                rest = (*media[:index], *media[index + 1 :])
                found = self._reading_of(replace(requests[STEERED], media=rest))
                exchange = replace(exchange, without=(*exchange.without, found))
                yield exchange
        except ExportError:
            raise
        except BaseException as error:
            if not isinstance(error, Exception) and not is_panic(error):
                raise
            raise ExportError(_told(error)) from error
        yield replace(exchange, done=True)

    def _require_askable(self, request: Request) -> None:
        shown = {medium.modality for medium in request.conversation_media}
        if mixes(shown):
            raise ExportError(_MIXED)
        if not request.prompt and not request.media:
            raise ExportError("write something, or add a file")
        context = context_length(self.loaded.model.config) - self.max_new_tokens
        asked = Asked("the conversation", request.prompt, lambda: request)
        check_requests(self.loaded.processor, context, [asked])

    def _arm(
        self, exchange: Exchange, arm: str, request: Request
    ) -> Generator[Exchange, None, Exchange]:
        """The exchange with the answer of one arm, as it grows."""

        def generate(streamer: Any) -> tuple[Answers, Reading | None]:
            return self._answer(request, arm == STEERED, self.max_new_tokens, streamer)

        answer = streamed(self.loaded.processor, generate, self._busy)
        while True:
            try:
                text = next(answer)
            except StopIteration as end:
                answers, reading = end.value
                break
            yield exchange.answered(arm, text)
        cut = exchange.cut | ({arm} if answers.cut[0] else set())
        exchange = replace(exchange.answered(arm, answers.texts[0]), cut=cut, reading=reading)
        yield exchange
        return exchange

    def _reading_of(self, request: Request) -> Reading | None:
        """What steering would do at the beginning of an answer, of which one token is made."""
        with self._busy:
            return self._answer(request, True, 1, None)[1]

    def _answer(
        self, request: Request, steered: bool, tokens: int, streamer: Any
    ) -> tuple[Answers, Reading | None]:
        inputs = self.loaded.inputs([request])
        with _first_coordinate(self.loaded.model) as coordinates:
            answers = self.loaded.answer(
                inputs, tokens, steered=steered, factor=1.0, streamer=streamer
            )
        return answers, self._reading(answers, coordinates) if steered else None

    def _reading(self, answers: Answers, coordinates: Sequence[float]) -> Reading | None:
        (decision,), (push,) = answers.decisions, answers.pushes
        if decision is None or decision.modality is None:
            return None
        place = margin = None
        if self.scale is not None and coordinates:
            place = self.scale.place(coordinates[0])
            margin = place - self.scale.clouds[decision.modality].opens
        return Reading(decision.modality, decision.gate, push, place, margin, decision.calibrated)


def open_subject(
    directory: Path,
    *,
    device: str = "auto",
    dtype: str = "auto",
    max_new_tokens: int,
    name: str | None = None,
) -> Subject:
    """Load a steered checkpoint for the page, and see that it steers.

    Args:
        directory: Steered checkpoint, with or without a manifest.
        device: `auto`, or the name of a torch device.
        dtype: Name of a torch dtype; `auto` for the one that it is saved in.
        max_new_tokens: Longest answer, in tokens.
        name: For people; None for that of the directory.

    Raises:
        ExportError: The directory is not steered, damaged, does not load, or does not steer as it
            was calibrated.
    """
    rules, _ = read_steering(directory)
    manifest = None
    if (directory / MANIFEST_NAME).is_file():
        manifest = Manifest.read(directory)
    where, precision = pick_device(device), None if dtype == "auto" else dtype
    modalities = tuple(rules["modalities"])
    if manifest is None:
        loaded = load(directory, modalities, where, precision)
    else:
        loaded = load_checked(directory, manifest, where, precision)
    scale = scale_of(manifest.calibration if manifest else None)
    shown = name or directory.resolve().name
    return Subject(shown, loaded, manifest, modalities, scale, max_new_tokens)


@contextmanager
def _first_coordinate(model: Any) -> Iterator[list[float]]:
    """Note where the last position of the next prompt lies, in the method's own coordinate.

    The list stays empty for rules without one, and with steering off.
    """
    found: list[float] = []

    def note(rule: Any, args: Any, _result: Any) -> None:
        if not found:  # what comes later are the tokens of the answer
            found.append(float(rule.coordinate(*args).reshape(-1)[-1]))

    rules = [rule for rule in hosted_rules(model) if hasattr(rule, "coordinate")]
    hooks = [rule.register_forward_hook(note) for rule in rules]
    try:
        yield found
    finally:
        for hook in hooks:
            hook.remove()


def _told(error: BaseException) -> str:
    """What a library or the checkpoint raised, in one line for the page."""
    if is_out_of_memory(error):
        free_memory()
        return "that does not fit into memory; show less, or begin a new conversation"
    return reason(error)
