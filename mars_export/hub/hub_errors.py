"""Turns what huggingface_hub raises into one line that the user can act on."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from huggingface_hub import get_token
from huggingface_hub.errors import (
    DisabledRepoError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from mars_export.common.errors import ExportError

__all__ = ["LOGIN", "hub_errors", "unreachable"]

LOGIN: Final = "run `hf auth login`"
_NO_NETWORK: Final = (
    "cannot reach the Hugging Face Hub for {subject}: check the network, and HF_HUB_OFFLINE"
)
_BY_TYPE: Final[tuple[tuple[type[Exception], str], ...]] = (
    (GatedRepoError, f"{{subject}} is gated: accept its terms at {{url}} and {LOGIN}"),
    (DisabledRepoError, "{subject} has been disabled on the Hub"),
    (RevisionNotFoundError, "{subject} has no such revision: see the commits at {url}/commits"),
    (
        RepositoryNotFoundError,
        f"{{subject}} is not on the Hub, or not visible to you: check the name, or {LOGIN}",
    ),
    (LocalTokenNotFoundError, f"not logged in to the Hugging Face Hub: {LOGIN} or set HF_TOKEN"),
    (HFValidationError, "{subject} is not a repository name: write it as ORG/NAME"),
    (LocalEntryNotFoundError, _NO_NETWORK),
    (OfflineModeIsEnabled, _NO_NETWORK),
)
_BY_STATUS: Final[dict[int, str]] = {
    401: f"the Hub does not accept your login for {{subject}}: {LOGIN} again",
    403: "your login may not do this with {subject}: {said}",
    409: "{subject} already exists and is not visible to you: choose another name",
    412: "{subject} changed on the Hub during the push: run the command again",
    429: "the Hub asks for fewer requests: wait some minutes and run the command again",
}


@contextmanager
def hub_errors(subject: str, endpoint: str) -> Iterator[None]:
    """Translate Hub errors raised inside the block; others pass unchanged.

    Args:
        subject: Repository that the block is about.
        endpoint: Address of the Hub, for links.

    Raises:
        ExportError: for everything that the Hub, the network or the login can cause.
    """
    try:
        yield
    except Exception as error:
        reason = _reason(error)
        template = _template(reason)
        if template is None:
            raise
        said = _said(reason)
        raise ExportError(
            template.format(subject=subject, url=f"{endpoint}/{subject}", said=said)
        ) from error


def _reason(error: Exception) -> Exception:
    """The error itself, or what huggingface_hub wrapped when it uploaded a large file."""
    cause = error.__cause__
    return cause if isinstance(error, RuntimeError) and isinstance(cause, Exception) else error


def unreachable(error: Exception) -> bool:
    """Whether the request never got an answer (no network, refused, timed out, offline mode)."""
    # httpx up to huggingface_hub 1, httpx2 from 2: the public errors do not name this case.
    transport = type(error).__module__.split(".")[0] in {"httpx", "httpx2"}
    return transport or isinstance(error, (OfflineModeIsEnabled, LocalEntryNotFoundError))


def _template(error: Exception) -> str | None:
    for kind, template in _BY_TYPE:
        if isinstance(error, kind):
            return template
    if isinstance(error, HfHubHTTPError):
        status = error.response.status_code
        general = f"the Hub answered {status} for {{subject}}: {{said}}"
        return _BY_STATUS.get(status, general)
    if isinstance(error, OSError) and error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return "no disk space left for {subject}: free some, or put the cache elsewhere (HF_HOME)"
    if isinstance(error, ValueError) and str(error).startswith("Invalid metadata"):
        return "the Hub does not accept the card of {subject}: {said}"
    return _NO_NETWORK if unreachable(error) else None


def _said(error: Exception) -> str:
    message = getattr(error, "server_message", None) or str(error)
    line = " ".join(message.split()) or type(error).__name__
    if token := get_token():  # of whatever form
        line = line.replace(token, "***")
    return _SECRET.sub("***", line)[:300]


_SECRET: Final = re.compile(r"hf_\w+|(?<=\?)\S+")
"""Tokens, and the query of an address: upload links are signed there."""
