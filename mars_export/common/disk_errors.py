"""Problems of the disk, as one line that says what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError

__all__ = ["clear_disk_errors"]

_ADVICE: Final = {
    errno.ENOSPC: "free some space",
    errno.EDQUOT: "free some space",
    errno.EFBIG: "raise the file size limit",
    errno.EACCES: "choose another --output, or change its permissions",
    errno.EPERM: "choose another --output, or change its permissions",
    errno.EROFS: "choose another --output",
    errno.ENOTDIR: "choose another --output",
    errno.ENAMETOOLONG: "choose another --output",
    errno.EIO: "check the disk",
}
_RUST_ERROR: Final = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers, which are Rust, report a failed write."""


@contextmanager
def clear_disk_errors(output: Path) -> Iterator[None]:
    """Translate errors of the operating system that the user can do something about.

    Args:
        output: The directory that is being made, named when the error names no file.

    Raises:
        ExportError: for a full, read-only or protected disk; other errors pass unchanged.
    """
    try:
        yield
    except ExportError:
        raise
    except Exception as error:
        code = _errno(error)
        if code not in _ADVICE:
            raise
        where = getattr(error, "filename", None) or output
        raise ExportError(
            f"cannot write {where}: {os.strerror(code)}; {_ADVICE[code]} and run the same command "
            "again (finished stages are kept)"
        ) from error


def _errno(error: Exception) -> int:
    if isinstance(error, OSError) and error.errno:
        return error.errno
    found = _RUST_ERROR.search(str(error))
    return int(found[1]) if found else 0
