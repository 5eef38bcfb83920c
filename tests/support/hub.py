"""A local Hub: enough of the HTTP protocol to create, upload, copy, publish and load models.

Standard library only. Large objects belong to a repository, as on the real Hub: a commit that names
one which was neither uploaded to that repository nor duplicated into it is refused. `requests`
holds every request with the bytes that traveled, so that a test can say how much was uploaded.

The client reads its environment when huggingface_hub is imported: give `env(home)` to a subprocess.
"""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlparse

from support.hub_routes import Call, HubError, Reply, dispatch
from support.hub_store import Repo

LARGE = (".safetensors", ".bin", ".png")
"""Suffixes that the Hub stores as large objects."""


CUT = "X-Cut"
"""A header of a reply that is broken off; with the status 0 there is no reply at all."""


@dataclass(frozen=True)
class Request:
    """One request as the server saw it. `headers` are the client's, token included."""

    method: str
    path: str
    route: str
    status: int
    received: int
    """Bytes of the body."""
    body: bytes = field(repr=False)
    headers: dict[str, str] = field(repr=False)


class Hub:
    """The state of the server. One user, `me`, whose token is `token`."""

    token = "hf_localtesttokenlocaltesttoken0001"
    user = "me"

    def __init__(self) -> None:
        self.repos: dict[str, Repo] = {}
        self.requests: list[Request] = []
        self.granted: set[str] = set()
        """Gated repositories that `me` may read."""
        self.broken: dict[str, tuple[int, str]] = {}
        """Route name to the status and message that it answers with instead."""
        self.meddle: Callable[[Call, Callable[[], Reply]], Reply] = lambda _, answer: answer()
        """Answers a call in its own way; the second argument answers it as the Hub does."""
        self.url = ""

    def add(self, repo_id: str, files: dict[str, bytes], **options: Any) -> Repo:
        """Create a repository with one commit. Options: private, gated, xet."""
        repo = self.repos[repo_id] = Repo(repo_id, **options)
        repo.publish(files, LARGE)
        return repo

    def add_folder(self, repo_id: str, folder: Path, **options: Any) -> Repo:
        """Create a repository from a local directory."""
        paths = [path for path in folder.rglob("*") if path.is_file()]
        files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in paths}
        return self.add(repo_id, files, **options)

    def received(self, *routes: str) -> int:
        """Bytes that clients sent to these routes, or to all of them."""
        return sum(r.received for r in self.requests if not routes or r.route in routes)

    def count(self, route: str) -> int:
        """Requests to a route."""
        return sum(request.route == route for request in self.requests)

    def env(self, home: Path, token: str | None = token) -> dict[str, str]:
        """Environment of a subprocess that talks to this Hub and to no other."""
        settings = {
            "HF_ENDPOINT": self.url,
            "HF_HOME": str(home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }
        return settings | ({"HF_TOKEN": token} if token else {})


@contextmanager
def running_hub() -> Iterator[Hub]:
    """Serve an empty Hub on a free local port."""
    hub = Hub()
    handler = type("HubHandler", (_Handler,), {"hub": hub})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    hub: Hub

    def log_message(self, *_: object) -> None:
        """Keep quiet."""

    def answer(self) -> None:
        url = urlparse(self.path)
        body = self.read_body()
        call = Call(self.hub, self.command, unquote(url.path), parse_qs(url.query), body)
        call.headers = {name.lower(): value for name, value in self.headers.items()}
        try:
            status, payload, headers = dispatch(call)
        except HubError as refusal:
            status, payload, headers = refusal.reply()
        raw = isinstance(payload, bytes)
        content = payload if raw else json.dumps(payload).encode()
        headers = {"Content-Type": f"application/{'octet-stream' if raw else 'json'}"} | headers
        # Before the client can look: it has its answer once the last byte is sent.
        self.hub.requests.append(
            Request(self.command, call.path, call.route, status, len(body), body, call.headers)
        )
        self.send(status, content, headers)

    do_GET = do_POST = do_PUT = do_HEAD = answer  # noqa: N815 - names that http.server calls

    def read_body(self) -> bytes:
        if self.headers.get("Transfer-Encoding") != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length") or 0))
        parts = []
        while size := int(re.match(rb"[0-9a-fA-F]+", self.rfile.readline())[0], 16):  # type: ignore[index]
            parts.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(parts)

    def send(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        self.close_connection = CUT in headers
        if status == 0:
            return
        self.send_response(status)
        for name, value in (headers | {"Content-Length": str(len(content))}).items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content[: len(content) // 2] if CUT in headers else content)
