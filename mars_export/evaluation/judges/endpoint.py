"""A judge behind an OpenAI-compatible endpoint. Free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import Final

from mars_export.evaluation.chat_api import UNREADABLE, ChatServer, User, at_once, readable
from mars_export.evaluation.judges.base import Exchange, Judge, Judgment
from mars_export.evaluation.judges.parsing import RUBRIC, judgments, rubric

__all__ = ["TOKEN_VARIABLE", "EndpointJudge"]

TOKEN_VARIABLE: Final = "MARS_JUDGE_TOKEN"
_USER: Final = User(
    flag="--judge",
    server="the judge",
    variable=TOKEN_VARIABLE,
    what="a judge behind an address",
    extra="judge",
)
_WORKERS: Final = 8
_REPLY_TOKENS: Final = 64


class EndpointJudge(Judge):
    """Asks a chat model for a fixed JSON label, at temperature 0.

    A reply that is not the label is unknown. An endpoint that cannot be reached or refuses stops
    the run: finished batches are kept, and nothing is counted that nobody judged.
    """

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        """Name an endpoint; nothing is sent. See `ChatServer`."""
        self._server = ChatServer(url, _USER, timeout=timeout)

    @cached_property
    def name(self) -> str:
        """Model, host and digest of the prompt; pin a dated model, for hosts change theirs.

        Raises:
            ExportError: No model is named and the endpoint does not have exactly one.
        """
        digest = hashlib.sha256(RUBRIC.encode()).hexdigest()[:12]
        return f"endpoint/{self._server.model}@{self._server.host}, prompt {digest}"

    def check(self) -> None:
        """Have one answer judged.

        Raises:
            ExportError: The endpoint refuses, or does not answer in all tries.
        """
        self._reply(Exchange("Hello.", "Hello."), patient=False)

    def judge_answers(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order.

        Raises:
            ExportError: The endpoint refuses, or does not answer in all tries.
        """
        _ = self._server.model  # one request, before the threads
        replies = at_once(self._reply, exchanges, _WORKERS)
        return judgments(exchanges, replies, rubric, speaks_of_refusal=True)

    def _reply(self, exchange: Exchange, patient: bool = True) -> str:
        """What the model wrote; empty when the endpoint's answer is not of the known form."""
        text = RUBRIC.format(question=exchange.question, response=exchange.response)
        answer = self._server.complete(
            patient=patient,
            messages=[{"role": "user", "content": text}],
            temperature=0,
            max_tokens=_REPLY_TOKENS,
        )
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except UNREADABLE:
            return ""
        return readable(content) if isinstance(content, str) else ""
