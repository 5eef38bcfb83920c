"""Paths that a user or somebody else's file names: any text, not only what a disk can hold."""

import stat
from pathlib import Path, PurePosixPath

__all__ = ["exists", "is_dir", "is_file", "named", "require_inside", "resolved"]


def named(word: str | Path) -> Path:
    """The path that a user's word names, with the home directory for `~` where there is one."""
    try:
        return Path(word).expanduser()
    except RuntimeError:  # `~name` without such a user: a path like any other
        return Path(word)


def resolved(path: Path) -> Path:
    """The path without links and dots; with them where links form a circle."""
    try:
        return path.resolve()
    except (OSError, RuntimeError, ValueError):
        return path.absolute()


def is_file(path: Path) -> bool:
    """Whether there is such a file; False, not an error, for a name that no disk can hold."""
    return stat.S_ISREG(_mode(path))


def is_dir(path: Path) -> bool:
    """Whether there is such a directory; False for a name that no disk can hold."""
    return stat.S_ISDIR(_mode(path))


def exists(path: Path) -> bool:
    """Whether there is anything; False for a name that no disk can hold."""
    return _mode(path) != 0


def _mode(path: Path) -> int:
    try:
        return path.stat().st_mode
    except (OSError, ValueError):  # too long, in a folder that may not be read, with a null byte
        return 0


def require_inside(path: str) -> str:
    """A relative POSIX path that stays below the folder of the file that names it.

    Raises:
        ValueError: if it is absolute, climbs, or is no path that every system can open.
    """
    parts = PurePosixPath(path)
    odd = any(c in "\\:" or c < " " or "\ud800" <= c <= "\udfff" for c in path)
    if odd or parts.is_absolute() or ".." in parts.parts or not parts.parts:
        raise ValueError(f"{path!r} must be a relative path inside the folder of this file")
    return path
