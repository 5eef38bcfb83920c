"""Where a traceback goes: into a file, never onto the terminal."""

import platform
import tempfile
import traceback
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Final

from mars_export._version import __version__
from mars_export.common.input_errors import without_secrets

__all__ = ["write_log"]

_LIBRARIES: Final = ("torch", "transformers", "tokenizers", "safetensors", "huggingface-hub")


def write_log(error: BaseException, arguments: Sequence[str]) -> Path | None:
    """Write the traceback of an exception, the command and the versions to a new private file.

    Returns:
        The file in the directory for temporary files; None where none can be written.
    """
    lines = [
        f"mars-export {__version__}, Python {platform.python_version()}, {platform.platform()}",
        *(f"{name} {_version(name)}" for name in _LIBRARIES),
        f"arguments: {list(arguments)}",
        "",
        "".join(traceback.format_exception(error)),
    ]
    text = without_secrets("\n".join(lines))
    try:
        with tempfile.NamedTemporaryFile(
            "w", prefix="mars-export-", suffix=".log", delete=False, encoding="utf-8",
            errors="backslashreplace",
        ) as stream:  # fmt: skip
            stream.write(text)
    except OSError:
        return None
    return Path(stream.name)


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return "not installed"
