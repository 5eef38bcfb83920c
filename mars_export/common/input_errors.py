"""Turns whatever a library raises over an input into one line that names the input."""

import errno
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from mars_export.common.errors import ExportError

__all__ = [
    "InputError",
    "decoding",
    "input_errors",
    "is_out_of_memory",
    "is_panic",
    "one_line",
    "origin",
    "reason",
    "without_secrets",
]

_FULL: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
"""Problems of the disk that is written, whatever was being read."""
_SECRET: Final = re.compile(r"hf_\w+|(?<=\?)[^\s'\"]+")
"""Tokens, and the query of an address: upload links are signed there."""
_LONGEST: Final = 300
"""Characters of a library's message."""


class InputError(ExportError):
    """An exception of a library over an input, as its `__cause__`; the traceback is worth a log."""


@contextmanager
def input_errors(what: str, advice: str = "download it again") -> Iterator[None]:
    """Translate every exception inside the block, which runs one step of a library over an input.

    Args:
        what: The input and what failed, as `the processor of DIR does not load`.
        advice: What to do about it.

    Raises:
        InputError: for everything but our own errors, memory that runs out and a full disk.
    """
    try:
        yield
    except ExportError:
        raise
    except BaseException as error:
        if not isinstance(error, Exception) and not is_panic(error):
            raise
        if is_out_of_memory(error) or getattr(error, "errno", None) in _FULL:
            raise
        raise InputError(f"{what}: {reason(error)}; {advice}") from error


@contextmanager
def decoding(kind: str, where: str) -> Iterator[None]:
    """Translate every exception inside the block, which decodes a user's file.

    Args:
        kind: Of file, for example `picture`.
        where: It stands, for messages.

    Raises:
        ExportError: for everything but memory that runs out.
    """
    try:
        yield
    except MemoryError:
        raise
    except Exception as error:  # decoders raise what they like
        said = " ".join(_without_path(error).split()).rstrip(".") or type(error).__name__
        raise ExportError(f"{where}: not a readable {kind} ({said}); replace it") from error


def _without_path(error: Exception) -> str:
    """What a decoder says but for the path: the system and PyAV, libsndfile, or another."""
    if type(error).__name__ == "UnidentifiedImageError":
        return "no format that Pillow knows"
    if type(error).__name__ == "LibsndfileError" and getattr(error, "code", 0) == 1:
        return "none of wav, flac, mp3, ogg and opus"
    parts = (getattr(error, name, None) for name in ("strerror", "error_string"))
    return next(filter(None, parts), None) or str(error)


def reason(error: BaseException) -> str:
    """What an exception says, on one line of bounded length; of a failed import, why it failed."""
    error = origin(error) if isinstance(error, ImportError) else error
    name, line = type(error).__name__, without_secrets(" ".join(str(error).split()))
    if len(line) > _LONGEST:
        line = f"{line[:_LONGEST]}..."
    telling = " " in line and not isinstance(error, LookupError)
    return line if telling else f"{name}: {line}" if line else name


def origin(error: BaseException) -> BaseException:
    """The exception that an exception, and its cause in turn, was raised from."""
    while error.__cause__ is not None:
        error = error.__cause__
    return error


def one_line(error: BaseException) -> str:
    """What an exception says, whole and on one line; its type if it says nothing."""
    return " ".join(str(error).split()) or type(error).__name__


def without_secrets(text: str) -> str:
    """A text for the terminal or a file, without tokens and signed addresses."""
    return _SECRET.sub("***", text)


def is_panic(error: BaseException) -> bool:
    """Whether it is how a library in Rust fails, such as tokenizers; no `Exception` to Python."""
    return type(error).__name__ == "PanicException"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, of the machine or of a GPU."""
    torch = sys.modules.get("torch")
    short = (MemoryError, torch.OutOfMemoryError) if torch else MemoryError
    if isinstance(error, short):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
