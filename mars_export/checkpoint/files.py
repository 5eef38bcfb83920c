"""The files of a checkpoint, none of which is ever run. `hub.repository` has those on the Hub."""

import hashlib
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from safetensors import SafetensorError, safe_open

from mars_export.common.errors import ExportError
from mars_export.families.directory import digest

__all__ = ["CheckpointFiles", "LocalFiles", "git_blob_id", "tensor_sizes"]


class CheckpointFiles(Protocol):
    """Files by relative POSIX path."""

    sizes: dict[str, int]
    """Bytes of every plain file."""
    irregular: dict[str, str]
    """What is no plain file of its own, and what is wrong with it."""

    def sha256(self, path: str, progress: Callable[[int], None]) -> str:
        """Digest of a file; `progress` is called with the bytes of each piece."""

    def fetch(self, path: str) -> Path:
        """A file on this machine with that content."""

    def tensors(self, path: str) -> Mapping[str, int]:
        """Tensor name to bytes of its data, from the header of a safetensors file."""


class LocalFiles:
    """A directory on this machine."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.sizes: dict[str, int] = {}
        self.irregular: dict[str, str] = {}
        # The cache of the Hub keeps the files of its snapshots in `blobs`, behind links.
        homes = [root.resolve()]
        if root.resolve().parent.name == "snapshots":
            homes.append(root.resolve().parents[1] / "blobs")
        for folder, folders, files in os.walk(root):
            for path in (Path(folder) / name for name in files):
                self._list(path, homes)
            for path in (Path(folder) / name for name in folders):
                if path.is_symlink():
                    self.irregular[self._name(path)] = "is a link to a directory"

    def _list(self, path: Path, homes: list[Path]) -> None:
        name = self._name(path)
        try:
            real = path.resolve()
            if not any(real.is_relative_to(home) for home in homes):
                self.irregular[name] = "leads out of the directory"
            elif not real.is_file():
                self.irregular[name] = "is not a plain file"
            else:
                self.sizes[name] = real.stat().st_size
        except (OSError, RuntimeError) as error:  # RuntimeError: links in a circle
            self.irregular[name] = f"cannot be read: {error}"

    def _name(self, path: Path) -> str:
        return path.relative_to(self.root).as_posix()

    def sha256(self, path: str, progress: Callable[[int], None]) -> str:
        """Digest of a file; `progress` is called with the bytes of each piece."""
        return digest(self.root / path, progress)

    def fetch(self, path: str) -> Path:
        """The file itself.

        Raises:
            ExportError: if it is missing.
        """
        if path not in self.sizes:
            raise ExportError(f"{path} {self.irregular.get(path, 'is missing')}")
        return self.root / path

    def tensors(self, path: str) -> Mapping[str, int]:
        """Tensor name to bytes of its data.

        Raises:
            ExportError: if the file is missing or no safetensors file.
        """
        try:
            return tensor_sizes(self.fetch(path))
        except (SafetensorError, OSError) as error:
            raise ExportError(f"{path} is no safetensors file: {error}") from error


def tensor_sizes(path: Path) -> dict[str, int]:
    """Tensor name to bytes of its data, sorted by name.

    Raises:
        OSError: if the file cannot be read.
        safetensors.SafetensorError: if it is no safetensors file.
    """
    with safe_open(path, "pt"):  # it checks the header: what is read below is well formed
        pass
    with path.open("rb") as stream:
        header: dict[str, Any] = json.loads(stream.read(int.from_bytes(stream.read(8), "little")))
    header.pop("__metadata__", None)
    spans = {name: entry["data_offsets"] for name, entry in header.items()}
    return {name: end - start for name, (start, end) in sorted(spans.items())}


def git_blob_id(content: bytes) -> str:
    """How git, and so the Hub, names a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
