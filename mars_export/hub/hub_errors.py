"""Turns what huggingface_hub raises into one line that the user can act on."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from traceback import walk_tb
from typing import Final

from huggingface_hub import get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    XetDownloadError,
)

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import InputError, reason, without_secrets

__all__ = ["garbled", "hub_errors", "unreachable"]

_LOGIN: Final = "run `hf auth login`"


@contextmanager
def hub_errors(subject: str, endpoint: str) -> Iterator[None]:
    """Translate Hub errors raised inside the block; others pass unchanged.

    Args:
        subject: Repository that the block is about.
        endpoint: Address of the Hub, for links.

    Raises:
        ExportError: for everything that the Hub, the network or the login can cause; the library's
            own message, except where advice helps.
    """
    try:
        yield
    except Exception as error:
        # huggingface_hub wraps what fails in the upload of a large file.
        wrapped = isinstance(error, RuntimeError) and isinstance(error.__cause__, Exception)
        message = _message(error.__cause__ if wrapped else error, subject, endpoint)
        if message is not None:
            raise ExportError(message) from error
        if not garbled(error):
            raise
        raise InputError(
            f"the answer of {endpoint} for {subject} is not understood ({_plain(error)}): try "
            "again, and check HF_ENDPOINT and the proxy"
        ) from error


def unreachable(error: BaseException | None) -> bool:
    """Whether the request never got an answer (no network, refused, timed out, offline mode)."""
    # httpx up to huggingface_hub 1, httpx2 from 2: the public errors do not name this case.
    transport = type(error).__module__.split(".")[0] in {"httpx", "httpx2"}
    return transport or isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError))


def garbled(error: Exception) -> bool:
    """Whether huggingface_hub fails over an answer, which a proxy may have put in place of one."""
    if isinstance(error, (MemoryError, ExportError)):
        return False
    if isinstance(error, OSError) and error.errno is not None:  # of the system, not of an answer
        return False
    frames = (frame for frame, _ in walk_tb(error.__traceback__))
    modules = [str(frame.f_globals.get("__name__")).split(".")[0] for frame in frames]
    known = [name for name in modules if name in ("mars_export", "huggingface_hub")]
    return known[-1:] == ["huggingface_hub"]


def _message(error: BaseException | None, subject: str, endpoint: str) -> str | None:
    if isinstance(error, GatedRepoError):
        return f"{subject} is gated: accept its terms at {endpoint}/{subject} and {_LOGIN}"
    if isinstance(error, RepositoryNotFoundError):
        return f"{subject} is not on the Hub, or not visible to you: check the name, or {_LOGIN}"
    if isinstance(error, LocalTokenNotFoundError):
        return f"not logged in to the Hugging Face Hub: {_LOGIN} or set HF_TOKEN"
    if isinstance(error, HfHubHTTPError) and error.response.status_code == 401:
        return f"the Hub does not accept your login for {subject}: {_LOGIN} again"
    if unreachable(error):
        return (
            f"cannot reach the Hugging Face Hub for {subject}: check the network, and whether "
            "HF_HUB_OFFLINE is set"
        )
    if isinstance(error, (ConnectionError, TimeoutError, XetDownloadError)):
        return (
            f"the transfer broke off for {subject} ({_plain(error)}): check the network, then "
            "repeat the command"
        )
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"no disk space left for {subject}: free some, or move the cache (HF_HOME)"
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        return f"the Hub answered {status} for {subject}: {_plain(error)}"
    invalid = isinstance(error, ValueError) and str(error).startswith("Invalid metadata")
    if invalid or isinstance(error, HFValidationError):
        return f"{subject}: {_plain(error)}"
    return None


def _plain(error: BaseException | None) -> str:
    """The library's message on one line, without secrets."""
    line = " ".join(str(getattr(error, "server_message", None) or "").split())
    line = line or (reason(error) if error else "")
    if token := get_token():  # of whatever form
        line = line.replace(token, "***")
    return without_secrets(line)[:300]
