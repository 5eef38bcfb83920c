"""Compare the files of a steered checkpoint with its manifest, without running any of them."""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from mars_export.checkpoint.files import CheckpointFiles, LocalFiles
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.modeling import CODE_NAMES
from mars_export.checkpoint.seal import SEAL_NAME, TOOL_FILES
from mars_export.common.progress import Tick
from mars_export.common.workspace import RUN_NAME

__all__ = ["changed_files", "dangerous_files", "verify_files"]

_CODE: Final = (".py", ".pyc", ".pyo", ".pyw", ".so", ".pyd", ".dll", ".dylib", ".sh")
_PICKLES: Final = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".joblib", ".npy", ".npz")
_LOADED: Final = (".safetensors", ".json", ".jinja", ".model", ".h5", ".msgpack")
"""At the top of a checkpoint a file of these kinds could change what is loaded."""

_OWN: Final = frozenset({MANIFEST_NAME, SEAL_NAME, RUN_NAME})
"""Ours, and of those kinds, but read by no loader."""


def verify_files(directory: Path, progress: Tick | None = None) -> list[str]:
    """Problems found, each one sentence; empty when every file is the one that was exported.

    Raises:
        ExportError: if there is no readable manifest.
    """
    manifest, files = Manifest.read(directory), LocalFiles(directory)
    return [
        *changed_files(files, manifest, progress),
        *dangerous_files(files, manifest),
        *(f"{name} {what}" for name, what in files.irregular.items() if name in _paths(manifest)),
    ]


def changed_files(
    files: CheckpointFiles, manifest: Manifest, progress: Tick | None = None
) -> Iterator[str]:
    """Files of the manifest that are missing or have other bytes, each as a sentence.

    Args:
        files: The checkpoint's.
        manifest: What they must be.
        progress: Called with how many bytes have been compared, and how many there are.
    """
    total, done = sum(entry.size for entry in manifest.files), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress(done, total)

    for entry in manifest.files:
        if entry.path in files.irregular:
            continue
        if entry.path not in files.sizes:
            yield f"{entry.path} is missing"
        elif (
            files.sizes[entry.path] != entry.size or files.sha256(entry.path, count) != entry.sha256
        ):
            yield f"{entry.path} is not the file that was exported"


def dangerous_files(files: CheckpointFiles, manifest: Manifest) -> Iterator[str]:
    """Files that no export holds, yet would be loaded or run, each as a sentence.

    Code and pickles count even when the manifest lists them: it may be forged.
    """
    harmless = {path for path in _paths(manifest) if not path.lower().endswith(_CODE + _PICKLES)}
    for name in sorted((files.sizes.keys() | files.irregular.keys()) - harmless - set(CODE_NAMES)):
        path = PurePosixPath(name.lower())
        if path.parts[0] in TOOL_FILES:
            continue
        if path.name.endswith(_CODE):
            yield f"{name} is no part of an export, yet it is code"
        elif path.name.endswith(_PICKLES):
            yield f"{name} is no part of an export, and loading its kind can run code"
        elif name not in _OWN and _is_loaded(path):
            yield f"{name} is no part of the export, yet it could change what is loaded"


def _paths(manifest: Manifest) -> set[str]:
    return {entry.path for entry in manifest.files}


def _is_loaded(path: PurePosixPath) -> bool:
    if len(path.parts) > 1:
        return path.parts[0] == "additional_chat_templates"
    return path.name.endswith(_LOADED) or path.name in ("merges.txt", "vocab.txt")
