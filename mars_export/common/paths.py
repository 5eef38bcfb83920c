"""Paths that come from a file of somebody else."""

from pathlib import PurePosixPath

__all__ = ["require_inside"]


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
