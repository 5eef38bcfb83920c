"""Servers that speak OpenAI's API: one model with steering, one without."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, ClassVar, Final

from mars_export.common.errors import ExportError
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.chat_api import (
    UNREADABLE,
    ChatServer,
    RefusedError,
    User,
    at_once,
    readable,
)
from mars_export.evaluation.engines.base import Answer, Answered, Asked
from mars_export.evaluation.engines.evidence import Evidence
from mars_export.evaluation.engines.serving import ServingEngine
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import REFERENCE, STEERED, EngineSource, SelfCheck
from mars_export.families.placement import Device
from mars_export.inputs.data_urls import frames_url, picture_url, sound_url
from mars_export.inputs.requests import Media, Request

__all__ = ["TOKEN_VARIABLE", "EndpointEngine", "chat"]

TOKEN_VARIABLE: Final = "MARS_ENDPOINT_TOKEN"
_ENDS: Final = ("stop", "length")
"""Why an answer ends that is the model's own; others are of filters, tools and failures."""
_TIMEOUT: Final = 600.0
"""Seconds; a server may put a request behind many others."""


def _user(flag: str) -> User:
    return User(
        flag=flag,
        server=f"the server of {flag}",
        variable=TOKEN_VARIABLE,
        what=f"an evaluation of {flag}",
        extra="judge",
    )


class EndpointEngine(ServingEngine):
    """Asks two models, on one server or two, greedily and several requests at once.

    The API tells the words of an answer and why it ended; what steering did stays unknown.
    """

    name = "endpoint"
    no_doses: ClassVar[str] = "a server cannot scale its steering"

    def __init__(self, steered: str, base: str, evidence: Evidence) -> None:
        """Name the servers; nothing is sent.

        Args:
            steered: Address of the steered checkpoint, as `ChatServer` takes it.
            base: That of the base model.
            evidence: What the two have to answer as recorded.

        Raises:
            ExportError: One is no address, both are the same, or `openai` is missing.
        """
        super().__init__(evidence)
        if steered == base:
            raise ExportError(
                "--base-endpoint: it is that of --endpoint; give the base model as URL#MODEL"
            )
        self._servers = {
            True: ChatServer(steered, _user("--endpoint"), timeout=_TIMEOUT),
            False: ChatServer(base, _user("--base-endpoint"), timeout=_TIMEOUT),
        }
        self._at_once = 1

    @property
    def identity(self) -> list[str]:
        """Models, servers and their versions; they are asked for them."""
        versions = (str(server.version) for server in self._servers.values())
        return [self.name, *self._served.values(), *versions]

    @property
    def _served(self) -> dict[str, str]:
        arms = {STEERED: self._servers[True], REFERENCE: self._servers[False]}
        return {arm: f"{server.model}@{server.host}" for arm, server in arms.items()}

    @property
    def source(self) -> EngineSource:
        """What was asked, and what was seen of its steering."""
        count = len(self._evidence.witnesses)
        return EngineSource(
            name=self.name,
            served=self._served,
            version=self._servers[True].version,
            checked=[
                f"{count} requests that Transformers answers differently off and on are answered "
                "as recorded, on by the steered model and off by the other"
            ],
            unchecked=[
                "weights, code and precision of what is served",
                "gates, strengths and positions of any request",
                "that steering off is the same bit for bit",
            ],
        )

    @property
    def dtype(self) -> str:
        """The API does not tell it."""
        return "unknown"

    def device(self, device: str) -> str:  # noqa: ARG002
        """The API does not tell it."""
        return "unknown"

    def open(self, arms: Sequence[Arm], options: EvaluationOptions, device: Device) -> None:
        """Learn how many requests may be under way at once."""
        super().open(arms, options, device)
        self._at_once = options.batch_size

    def self_check(self, arm: Arm) -> SelfCheck:
        """The recorded answers alone."""
        check = super().self_check(arm)
        told = f"{check.detail} Gates and strengths are not told."
        return check.model_copy(update={"detail": told})

    def problem(self, request: Request) -> str:
        """Ask both servers for one token."""
        if request.prefill:
            return "the API has no answers that are begun"
        try:
            for steered in (False, True):
                self._ask(steered, request, 1, None, patient=False)
        except RefusedError as error:
            return str(error)
        return ""

    def answers(self, arms: Sequence[Arm], asked: Asked) -> Answered:
        """One arm after the other, the requests of each at once.

        Raises:
            ExportError: A server refuses one, or does not answer.
        """
        return Answered({arm.name: self._answers(arm, asked) for arm in arms}, {})

    def _answers(self, arm: Arm, asked: Asked) -> list[Answer]:
        seeds = [
            None if asked.seed is None else asked.seed + place
            for place in range(len(asked.requests))
        ]
        told = [arm.request(request) for request in asked.requests]

        def ask(one: tuple[Request, int | None]) -> Answer:
            return self._ask(arm.steered, one[0], asked.max_new_tokens, one[1])

        return at_once(ask, zip(told, seeds, strict=True), self._at_once)

    def _ask(
        self, steered: bool, request: Request, tokens: int, seed: int | None, patient: bool = True
    ) -> Answer:
        server = self._servers[steered]
        answer = server.complete(patient=patient, **self._body(request, tokens, seed))
        try:
            (choice,) = json.loads(answer)["choices"]
            said, ended = choice["message"], choice["finish_reason"]
            text = said["content"] or said.get("refusal") or ""
        except UNREADABLE:
            text = None
        if not isinstance(text, str):
            raise ExportError(
                f"{server.base} does not answer as OpenAI's API does; check the address"
            )
        if ended not in _ENDS:
            raise ExportError(
                f"{server.base} ended an answer for the reason {ended!r}, and not because the "
                "model was done or reached the token limit, so that it shows nothing of the model; "
                "switch off filters and tools of the server"
            )
        return Answer(readable(text), ended == "length", "unknown" if steered else None)

    def _body(self, request: Request, tokens: int, seed: int | None) -> dict[str, Any]:
        options = self._arms[0].manifest.calibration.source.template_options
        drawn = {"temperature": 0} if seed is None else {"temperature": 1, "top_p": 1, "seed": seed}
        extra = {"extra_body": {"chat_template_kwargs": options}} if options else {}
        return {"messages": chat(request), "max_tokens": tokens, **drawn, **extra}


def chat(request: Request) -> list[dict[str, Any]]:
    """The messages of a request, its media as data URLs; it begins no answer."""
    conversation: list[dict[str, Any]] = []
    if request.system:
        conversation.append({"role": "system", "content": request.system})
    for turn in request.turns:
        conversation.append(_message(turn.prompt, turn.media))
        conversation.append({"role": "assistant", "content": turn.answer})
    return [*conversation, _message(request.prompt, request.media)]


def _message(text: str, media: Sequence[Media]) -> dict[str, Any]:
    if not media:
        return {"role": "user", "content": text}
    said = [{"type": "text", "text": text}] if text else []
    return {"role": "user", "content": [*map(_part, media), *said]}


def _part(medium: Media) -> dict[str, Any]:
    if medium.modality == "image":
        return {"type": "image_url", "image_url": {"url": picture_url(medium.data)}}
    if medium.modality == "video":
        return {"type": "video_url", "video_url": {"url": frames_url(medium.data)}}
    data = sound_url(medium.data).partition(",")[2]
    return {"type": "input_audio", "input_audio": {"data": data, "format": "wav"}}
