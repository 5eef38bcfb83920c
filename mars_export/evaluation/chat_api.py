"""Servers that speak OpenAI's API, asked through its client. Free of torch."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import FIRST_EXCEPTION, Future, wait
from dataclasses import dataclass
from functools import cached_property
from queue import Empty, SimpleQueue
from typing import Any, Final, NamedTuple, TypeVar
from urllib.parse import urlsplit, urlunsplit

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra

__all__ = ["UNREADABLE", "ChatServer", "RefusedError", "User", "at_once", "readable"]

_Asked = TypeVar("_Asked")
_Told = TypeVar("_Told")
_RETRIES: Final = 5
_FIRST_RETRIES: Final = 1
"""Before there is work to lose: an address that is wrong is told within seconds."""
_CONNECT: Final = 10.0
"""Seconds in which a server that is there takes a connection, however busy it is."""
_LOCAL: Final = frozenset({"localhost", "127.0.0.1", "::1"})
_TEMPORARY: Final = frozenset({408, 409, 429})
"""Besides 5xx, what the library tries again."""
UNREADABLE: Final = (ValueError, LookupError, TypeError, RecursionError)
"""What reading an answer that is not of the known form raises."""
_HEADERS: Final = frozenset({
    "host", "accept", "accept-encoding", "connection", "content-type", "content-length",
    "user-agent", "x-stainless-raw-response",
})  # fmt: skip
"""All that is sent beside the token; by the last one, the library returns the answer unread."""


class RefusedError(ExportError):
    """The server refuses this request, whatever may become of others."""


class User(NamedTuple):
    """Who asks, in the words of its messages."""

    flag: str
    """The option that gave the address."""
    server: str
    """What the server is: `the judge`, ..."""
    variable: str
    """Environment variable of the token. No other one is sent: the address is the user's choice."""
    what: str
    """What needs the library."""
    extra: str
    """Which brings it."""


@dataclass(frozen=True)
class _Address:
    base: str
    host: str
    model: str
    token: str


class ChatServer:
    """One model of one server."""

    def __init__(self, url: str, user: User, *, timeout: float) -> None:
        """Name a server; nothing is sent.

        Args:
            url: Base address such as `http://localhost:8000/v1`; `#MODEL` at its end names the
                model, which is needed unless the server has only one.
            user: Who asks.
            timeout: Longest wait for one reply, in seconds.

        Raises:
            ExportError: The address is no http address, carries a password or a query, or would
                send the token unencrypted; or the package `openai` is missing.
        """
        address = _address(url, user)
        self.base, self.host = address.base, address.host
        self._user, self._named = user, address.model
        self._client = _client(address, user, timeout)

    @cached_property
    def model(self) -> str:
        """Name of the model.

        Raises:
            ExportError: None is named and the server does not have exactly one.
        """
        if self._named:
            return self._named
        models = self.models()
        if len(models) != 1:
            raise ExportError(
                f"{self._user.flag}: {self.base} has {len(models)} models; name one as "
                f"{self.base}#MODEL"
            )
        return models[0]

    def models(self) -> list[str]:
        """What the server says that it has; nothing where it does not say.

        Raises:
            ExportError: It refuses, or does not answer.
        """
        client = self._impatient
        listing = self._send(client, client.models.with_raw_response.list)
        try:
            return [str(entry["id"]) for entry in json.loads(listing)["data"]]
        except UNREADABLE:
            return []

    @cached_property
    def version(self) -> str | None:
        """What vLLM says at `/version`; None where the server says nothing there."""
        from openai import OpenAIError

        root = self.base.removesuffix("/v1")
        try:
            told = self._impatient.get(f"{root}/version", cast_to=object)
        except OpenAIError:
            return None
        version = told.get("version") if isinstance(told, dict) else None
        return version if isinstance(version, str) else None

    def complete(self, *, patient: bool = True, **body: Any) -> bytes:
        """Ask for one completion of a chat; what the server sent, unread.

        Args:
            patient: Whether to try as often as there is work to lose.
            body: As the API has it, but for the model.

        Raises:
            RefusedError: The server refuses this request.
            ExportError: It does not answer in all tries.
        """
        model = self.model  # one request, before those of threads
        client = self._client if patient else self._impatient
        return self._send(
            client, client.chat.completions.with_raw_response.create, model=model, **body
        )

    @property
    def _impatient(self) -> Any:
        return self._client.with_options(max_retries=_FIRST_RETRIES)

    def _send(self, client: Any, request: Callable[..., Any], **body: Any) -> bytes:
        from openai import APIConnectionError, APIStatusError

        server = f"{self._user.server} at {self.base}"
        try:
            return bytes(request(**body).http_response.content)
        except APIStatusError as error:
            code = error.status_code
            reason = f"status {code}"
            if code < 500 and code not in _TEMPORARY:
                hint = f"set {self._user.variable} to a token that may use this model"
                if code not in (401, 403):
                    hint = "check the address, the model and what it supports"
                raise RefusedError(f"{server} refuses with {reason}; {hint}") from None
        except APIConnectionError as error:  # its text could quote a header
            reason = type(error.__cause__ or error).__name__
        raise ExportError(
            f"{server} did not answer in up to {client.max_retries + 1} tries "
            f"({reason}); finished batches are kept, repeat the command when it is back"
        )


def at_once(ask: Callable[[_Asked], _Told], all_asked: Iterable[_Asked], most: int) -> list[_Told]:
    """Ask several requests at once; what each was told, in order.

    Where one fails or the user stops, nothing more is asked, and nobody waits for what is under
    way: a server may take minutes to answer.

    Args:
        ask: Of one request.
        all_asked: The requests.
        most: How many may be under way.
    """
    waiting: SimpleQueue[tuple[_Asked, Future[_Told]]] = SimpleQueue()
    ended = threading.Event()
    replies: list[Future[_Told]] = []
    for asked in all_asked:
        replies.append(Future())
        waiting.put((asked, replies[-1]))

    def work() -> None:
        while not ended.is_set():
            try:
                asked, reply = waiting.get_nowait()
            except Empty:
                return
            try:
                reply.set_result(ask(asked))
            except BaseException as error:  # raised again where the answer is read
                ended.set()
                reply.set_exception(error)

    for _ in range(min(most, len(replies))):
        threading.Thread(target=work, daemon=True).start()
    try:
        done, _ = wait(replies, return_when=FIRST_EXCEPTION)
        return [reply.result() for reply in replies if reply in done]
    finally:
        ended.set()


def readable(text: str) -> str:
    """A text with halves of characters replaced, which JSON can hold and a file cannot."""
    return text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")


def _address(url: str, user: User) -> _Address:
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise ExportError(f"{user.flag}: that is no address such as http://localhost:8000/v1")
    if parts.username or parts.password or parts.query:
        raise ExportError(
            f"{user.flag}: the address may hold neither password nor query; put the token into "
            f"{user.variable}"
        )
    token = os.environ.get(user.variable, "")
    if token and parts.scheme == "http" and parts.hostname not in _LOCAL:
        raise ExportError(
            f"{user.flag}: {user.variable} is not sent to {parts.hostname} without encryption; "
            "use https"
        )
    if not (token.isascii() and token.isprintable()):
        raise ExportError(f"{user.variable} holds characters that no token has; correct it")
    base = urlunsplit((parts.scheme, parts.netloc, parts.path.rstrip("/"), "", ""))
    return _Address(base, parts.netloc, parts.fragment, token)


def _client(address: _Address, user: User, timeout: float) -> Any:
    """A client that sends this token and nothing else of the user's environment, and only here.

    The library would add what `OPENAI_*` variables hold and follow redirects.
    """
    try:
        from openai import DefaultHttpxClient, OpenAI, Timeout
    except ImportError as error:
        raise ExportError(f"{user.what} needs openai; run `{install_extra(user.extra)}`") from error

    def restrict(request: Any) -> None:
        for name in set(request.headers) - _HEADERS:
            del request.headers[name]
        if address.token:
            request.headers["Authorization"] = f"Bearer {address.token}"

    # A proxy of the environment does not see this machine, and must not see the token.
    direct = {f"all://[{host}]" if ":" in host else f"all://{host}": None for host in _LOCAL}
    try:
        http = DefaultHttpxClient(
            follow_redirects=False, event_hooks={"request": [restrict]}, mounts=direct
        )
        return OpenAI(
            base_url=address.base,
            api_key="-",
            http_client=http,
            timeout=Timeout(timeout, connect=_CONNECT),
            max_retries=_RETRIES,
        )
    except Exception as error:  # the HTTP library has its own for bad ports, hosts and proxies
        raise ExportError(
            f"{user.flag}: {address.base} cannot be used ({error}); correct it"
        ) from error
