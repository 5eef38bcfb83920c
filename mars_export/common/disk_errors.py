"""Problems of the disk, as one line that says what to do."""

import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from mars_export.common.errors import ExportError

__all__ = ["clear_disk_errors", "require_writable"]

_FULL: Final = "free some space or choose another --output, and run the same command again"
_NO_PLACE: Final = "choose another --output, and run the same command again"
_ADVICE: Final = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO), _FULL),
    **dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), _NO_PLACE),
    **dict.fromkeys((errno.ENOTDIR, errno.EEXIST, errno.ENAMETOOLONG, errno.ELOOP), _NO_PLACE),
}
_RUST_ERROR: Final = re.compile(r"\(os error (\d+)\)")
"""How safetensors and tokenizers, which are Rust, report a failed write."""


@contextmanager
def clear_disk_errors(output: Path) -> Iterator[None]:
    """Translate errors of the operating system that the user can do something about.

    Args:
        output: The directory that is being made, named when the error names no file.

    Raises:
        ExportError: for a full, read-only or protected disk, and for a name that no disk can hold;
            other errors pass unchanged.
    """
    try:
        yield
    except Exception as error:
        match = _RUST_ERROR.search(str(error))
        if isinstance(error, ValueError) and "null byte" in str(error):
            raise ExportError(f"{str(output)!r} holds a NUL character; correct it") from error
        code = getattr(error, "errno", None) or (int(match[1]) if match else 0)
        if code not in _ADVICE:
            raise
        where = getattr(error, "filename", None) or output
        raise ExportError(
            f"cannot write {where}: {os.strerror(code)}; {_ADVICE[code]} (finished stages are kept)"
        ) from error


def require_writable(folder: Path) -> None:
    """Refuse a folder that cannot be made or written to; leaves nothing behind.

    Raises:
        ExportError: as `clear_disk_errors`.
        OSError: for what that lets pass.
    """
    absent = [path for path in (folder, *folder.parents) if not path.exists()]
    with clear_disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        try:
            with TemporaryFile(dir=folder):
                pass
        finally:
            for path in absent:
                path.rmdir()
