"""Serves the page on this machine alone, and leaves nothing behind."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.demo import require_extra
from mars_export.demo.asking import Subject
from mars_export.demo.examples import Example, written
from mars_export.demo.page import look, make_page

__all__ = ["LOCAL", "served", "wait"]

LOCAL: Final = "127.0.0.1"
_LARGEST: Final = "32mb"
"""File that may be uploaded."""
_POLICY: Final = (
    "default-src 'self' data: blob:; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; "
    "style-src 'self' 'unsafe-inline'; object-src 'none'; base-uri 'self'; form-action 'self'"
)
"""What the browser may load: this page's own server, and nothing else."""
_UNANSWERED: Final = "localhost is not accessible"
"""In what gradio raises where it asked for its own page and got no answer in 3 s."""
_QUIET: Final = {
    "GRADIO_ANALYTICS_ENABLED": "False",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "GRADIO_NODE_SERVER": "False",
}


class _Headers:
    """Adds the policy to every answer, and refuses requests that mean another host."""

    def __init__(self, app: Any, hosts: Sequence[str]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """Answer one request."""

        async def with_policy(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [
                    *message["headers"],
                    (b"content-security-policy", _POLICY.encode()),
                    (b"referrer-policy", b"same-origin"),
                    (b"x-content-type-options", b"nosniff"),
                ]
            await send(message)

        host = dict(scope.get("headers") or ()).get(b"host", b"").decode("latin-1")
        if self._hosts and scope["type"] == "http" and host.rpartition(":")[0] not in self._hosts:
            await send({"type": "http.response.start", "status": 403, "headers": []})
            await send({"type": "http.response.body", "body": b"this page is for localhost"})
            return
        await self._app(scope, receive, with_policy)


@contextmanager
def served(
    subject: Subject,
    *,
    port: int | None = None,
    browser: bool = False,
    host: str = LOCAL,
    examples: Sequence[Example] = (),
) -> Iterator[str]:
    """Serve the page while the context is open.

    Args:
        subject: What answers.
        port: None for the first free one from 7860 on.
        browser: Whether to open it in a browser.
        host: Address to listen at.
        examples: Offered on the page.

    Yields:
        The address.

    Raises:
        ExportError: gradio is not installed, the port is taken, or the page does not answer.
    """
    require_extra()
    with tempfile.TemporaryDirectory(prefix="mars-demo-", ignore_cleanup_errors=True) as folder:
        os.environ.update(_QUIET, GRADIO_TEMP_DIR=folder, **_past_proxies())
        import gradio
        from starlette.middleware import Middleware

        offers = [(one.words, one.request.prompt, written(one, Path(folder))) for one in examples]
        page = make_page(gradio, subject, offers)
        hosts = (LOCAL, "localhost") if host == LOCAL else ()
        try:
            page.queue(api_open=False).launch(
                server_name=host,
                server_port=port,
                inbrowser=browser,
                share=False,
                quiet=True,
                prevent_thread_lock=True,
                max_file_size=_LARGEST,
                allowed_paths=[str(path) for _, _, files in offers for path in files],
                enable_monitoring=False,
                ssr_mode=False,
                pwa=False,
                mcp_server=False,
                app_kwargs={
                    "middleware": [Middleware(_Headers, hosts=hosts)],
                    "docs_url": None,
                    "redoc_url": None,
                    "openapi_url": None,
                },
                **look(gradio),
            )
        except OSError as error:
            where = f"--port {port}" if port else "no port from 7860 on"
            raise ExportError(f"{where}: taken, or not allowed; choose another --port") from error
        except ValueError as error:
            page.close(verbose=False)
            if _UNANSWERED not in str(error):
                raise
            raise ExportError(
                "the page does not answer on this machine: it is too busy, or something stands "
                f"between it and {host}; run the same command again"
            ) from error
        try:
            yield str(page.local_url)
        finally:
            page.close(verbose=False)


def _past_proxies() -> dict[str, str]:
    """Environment with which gradio asks for its own page here, not through the user's proxy."""
    known = os.environ.get("no_proxy") or os.environ.get("NO_PROXY") or ""
    hosts = ",".join(filter(None, (known, LOCAL, "localhost")))
    return {"no_proxy": hosts, "NO_PROXY": hosts}


def wait() -> None:
    """Until Ctrl-C."""
    try:
        threading.Event().wait()
    except KeyboardInterrupt:
        return
