"""Where the files of a steered checkpoint are: here a directory, in `hub.place` a repository."""

import os
from collections.abc import Callable, Set
from pathlib import Path
from typing import Protocol

from safetensors import SafetensorError, safe_open

from mars_export.common.errors import ExportError
from mars_export.families.directory import digest

__all__ = ["Directory", "Place"]


class Place(Protocol):
    """The files of a checkpoint, none of which is ever run. Paths are relative and POSIX."""

    sizes: dict[str, int]
    """Bytes of every plain file."""
    odd: dict[str, str]
    """What is no plain file of its own, and what is wrong with it."""

    def sha256(self, path: str, progress: Callable[[int], None]) -> str:
        """Digest of a file; `progress` is told bytes."""

    def fetch(self, path: str) -> Path:
        """A file on this machine with that content."""

    def tensors(self, path: str) -> Set[str]:
        """Names in the header of a safetensors file."""


class Directory:
    """A directory on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes: dict[str, int] = {}
        self.odd: dict[str, str] = {}
        # The cache of the Hub keeps the files of its snapshots in `blobs`, behind links.
        homes = [root.resolve()]
        if root.resolve().parent.name == "snapshots":
            homes.append(root.resolve().parents[1] / "blobs")
        for folder, folders, files in os.walk(root):
            for path in (Path(folder) / name for name in files):
                self._list(path, homes)
            for path in (Path(folder) / name for name in folders):
                if path.is_symlink():
                    self.odd[self._name(path)] = "is a link to a directory"

    def _list(self, path: Path, homes: list[Path]) -> None:
        name = self._name(path)
        try:
            real = path.resolve()
            if not any(real.is_relative_to(home) for home in homes):
                self.odd[name] = "leads out of the directory"
            elif not real.is_file():
                self.odd[name] = "is not a plain file"
            else:
                self.sizes[name] = real.stat().st_size
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            self.odd[name] = f"cannot be read: {error}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def sha256(self, path: str, progress: Callable[[int], None]) -> str:
        """Digest of a file; `progress` is told bytes."""
        return digest(self.root / path, progress)

    def fetch(self, path: str) -> Path:
        """The file itself.

        Raises:
            ExportError: if it is missing.
        """
        if path not in self.sizes:
            raise ExportError(f"{path} {self.odd.get(path, 'is missing')}")
        return self.root / path

    def tensors(self, path: str) -> Set[str]:
        """Names in the header of a safetensors file.

        Raises:
            ExportError: if it is missing or no safetensors file.
        """
        try:
            with safe_open(self.fetch(path), "pt") as shard:
                return frozenset(shard.keys())
        except SafetensorError as error:
            raise ExportError(f"{path} is no safetensors file: {error}") from error
