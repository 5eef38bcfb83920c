"""Compare a steered directory with its manifest, without running any of its code."""

from collections.abc import Callable
from pathlib import Path

from mars_export.checkpoint.files import digest
from mars_export.checkpoint.manifest import Manifest

__all__ = ["verify_files"]


def verify_files(directory: Path, progress: Callable[[int, int], None] | None = None) -> list[str]:
    """Problems found, each one sentence; empty when every file is the one that was exported.

    Raises:
        MarsError: if there is no readable manifest.
    """
    manifest = Manifest.read(directory)
    total, done = sum(entry.size for entry in manifest.files), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress(done, total)

    problems = []
    for entry in manifest.files:
        path = directory / entry.path
        if not path.resolve().is_relative_to(directory.resolve()):
            problems.append(f"{entry.path} lies outside the directory")
        elif not path.is_file():
            problems.append(f"{entry.path} is missing")
        elif path.stat().st_size != entry.size or digest(path, count) != entry.sha256:
            problems.append(f"{entry.path} is not the file that was exported")
    listed = {entry.path for entry in manifest.files}
    code = {p.relative_to(directory).as_posix() for p in directory.rglob("*.py")}
    problems += [f"{name} was not exported, yet it is code" for name in sorted(code - listed)]
    return problems
