"""A judge behind an OpenAI-compatible endpoint. Free of torch."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, Final
from urllib.parse import urlsplit, urlunsplit

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.evaluation.judges.base import Exchange, Judge, Judgment
from mars_export.evaluation.judges.parsing import RUBRIC, judgments, rubric

__all__ = ["TOKEN_VARIABLE", "EndpointJudge"]

TOKEN_VARIABLE: Final = "MARS_JUDGE_TOKEN"
"""Environment variable of the token. No other one is sent: the address is the user's choice."""

_RETRIES: Final = 5
_FIRST_RETRIES: Final = 1
"""Before there is work to lose: an address that is wrong is told within seconds."""
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_TEMPORARY: Final = frozenset({408, 409, 429})
"""Besides 5xx, what the library tries again."""
_UNREADABLE: Final = (ValueError, LookupError, TypeError, RecursionError)
_WORKERS: Final = 8
_REPLY_TOKENS: Final = 64
_HEADERS: Final = frozenset({
    "host", "accept", "accept-encoding", "connection", "content-type", "content-length",
    "user-agent", "x-stainless-raw-response",
})  # fmt: skip
"""All that is sent beside the token; by the last one, the library returns the answer unread."""


class EndpointJudge(Judge):
    """Asks a chat model for a fixed JSON label, at temperature 0.

    A reply that is not the label is unknown. An endpoint that cannot be reached or refuses stops
    the run: finished batches are kept, and nothing is counted that nobody judged.
    """

    def __init__(self, url: str, *, timeout: float = 120.0) -> None:
        """Name an endpoint; nothing is sent.

        Args:
            url: Base address such as `http://localhost:8000/v1`; `#MODEL` at its end names the
                model, which is needed unless the endpoint has only one.
            timeout: Longest wait for one reply, in seconds.

        Raises:
            ExportError: The address is no http address, carries a password or a query, or would
                send the token unencrypted; or the package `openai` is missing.
        """
        try:
            parts = urlsplit(url)
            known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:
            known = False
        if not known:
            raise ExportError("--judge: that is no address such as http://localhost:8000/v1")
        if parts.username or parts.password or parts.query:
            raise ExportError(
                "--judge: the address may hold neither password nor query; put the token into "
                f"{TOKEN_VARIABLE}"
            )
        token = os.environ.get(TOKEN_VARIABLE, "")
        if token and parts.scheme == "http" and parts.hostname not in _LOCAL:
            raise ExportError(
                f"--judge: {TOKEN_VARIABLE} is not sent to {parts.hostname} without encryption; "
                "use https"
            )
        if not (token.isascii() and token.isprintable()):
            raise ExportError(f"{TOKEN_VARIABLE} holds characters that no token has; correct it")
        self._base = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
        self._host = parts.netloc
        self._model_name = parts.fragment
        self._client = _client(self._base, token, timeout)

    @cached_property
    def name(self) -> str:
        """Model, host and digest of the prompt; pin a dated model, for hosts change theirs.

        Raises:
            ExportError: No model is named and the endpoint does not have exactly one.
        """
        digest = hashlib.sha256(RUBRIC.encode()).hexdigest()[:12]
        return f"endpoint/{self._model}@{self._host}, prompt {digest}"

    def check(self) -> None:
        """Have one answer judged.

        Raises:
            ExportError: The endpoint refuses, or does not answer in all tries.
        """
        self._reply(Exchange("Hello.", "Hello."), self._impatient)

    def judge_answers(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order.

        Raises:
            ExportError: The endpoint refuses, or does not answer in all tries.
        """
        _ = self._model  # one request, before the threads
        with ThreadPoolExecutor(_WORKERS) as pool:
            replies = list(pool.map(self._reply, exchanges))
        return judgments(exchanges, replies, rubric, speaks_of_refusal=True)

    @cached_property
    def _model(self) -> str:
        if self._model_name:
            return self._model_name
        client = self._impatient
        listing = self._send(client, client.models.with_raw_response.list)
        try:
            models = [str(entry["id"]) for entry in json.loads(listing)["data"]]
        except _UNREADABLE:
            models = []
        if len(models) != 1:
            raise ExportError(
                f"--judge: {self._base} has {len(models)} models; name one as {self._base}#MODEL"
            )
        return models[0]

    @property
    def _impatient(self) -> Any:
        return self._client.with_options(max_retries=_FIRST_RETRIES)

    def _reply(self, exchange: Exchange, client: Any = None) -> str:
        """What the model wrote; empty when the endpoint's answer is not of the known form."""
        client = client or self._client
        text = RUBRIC.format(question=exchange.question, response=exchange.response)
        answer = self._send(
            client,
            client.chat.completions.with_raw_response.create,
            model=self._model,
            messages=[{"role": "user", "content": text}],
            temperature=0,
            max_tokens=_REPLY_TOKENS,
        )
        try:
            content = json.loads(answer)["choices"][0]["message"]["content"]
        except _UNREADABLE:
            return ""
        return content if isinstance(content, str) else ""

    def _send(self, client: Any, request: Callable[..., Any], **body: Any) -> bytes:
        from openai import APIConnectionError, APIStatusError

        try:
            return bytes(request(**body).http_response.content)
        except APIStatusError as error:
            code = error.status_code
            reason = f"status {code}"
            if code < 500 and code not in _TEMPORARY:
                hint = f"set {TOKEN_VARIABLE} to a token that may use this model"
                if code not in (401, 403):
                    hint = "check the address, the model and what it supports"
                raise ExportError(
                    f"the judge at {self._base} refuses with {reason}; {hint}"
                ) from None
        except APIConnectionError as error:  # its text could quote a header
            reason = type(error.__cause__ or error).__name__
        raise ExportError(
            f"the judge at {self._base} did not answer in up to {client.max_retries + 1} tries "
            f"({reason}); finished batches are kept, repeat the command when it is back"
        )


def _client(base: str, token: str, timeout: float) -> Any:
    """A client that sends this token and nothing else of the user's environment, and only here.

    The library would add what `OPENAI_*` variables hold and follow redirects.
    """
    try:
        from openai import DefaultHttpxClient, OpenAI
    except ImportError as error:
        raise ExportError(
            f"a judge behind an address needs openai; run `{install_extra('judge')}`"
        ) from error

    def restrict(request: Any) -> None:
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        if token:
            request.headers["Authorization"] = f"Bearer {token}"

    try:
        http = DefaultHttpxClient(follow_redirects=False, event_hooks={"request": [restrict]})
        return OpenAI(
            base_url=base, api_key="-", http_client=http, timeout=timeout, max_retries=_RETRIES
        )
    except Exception as error:  # the HTTP library has its own for bad ports, hosts and proxies
        raise ExportError(f"--judge: {base} cannot be used ({error}); correct it") from error
