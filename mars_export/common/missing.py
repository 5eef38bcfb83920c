"""What is wrong with a path that is not what it should be, in one sentence without a period."""

from pathlib import Path

from mars_export.common.paths import exists, is_dir
from mars_export.common.problems import near_file

__all__ = ["missing_directory", "missing_file"]


def missing_directory(path: Path) -> str:
    """Of a path that is not a directory; names the one beside it that was probably meant."""
    if exists(path):
        return f"{path} is a file, not a directory"
    return f"there is no directory {path}{near_file(path)}"


def missing_file(path: Path) -> str:
    """Of a path that is not a file."""
    if is_dir(path):
        return f"{path} is a directory, not a file"
    return f"there is no file {path}{near_file(path)}"
