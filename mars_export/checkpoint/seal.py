"""`steering_seal.json`: what a steered directory holds beside its export. Free of torch.

The manifest covers what an export writes, and stays. Evaluation, card and pictures come later and
may be made again, so the seal covers those, and the manifest: whatever writes such files writes the
seal last. A signature is made of the seal, and thereby covers every file.
"""

from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

from pydantic import ValidationError

from mars_export.checkpoint.files import CheckpointFiles, LocalFiles
from mars_export.checkpoint.manifest import MANIFEST_NAME, Inside, Manifest
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.record import (
    NO_DIGEST,
    Record,
    VersionedRecord,
    first_problem,
    own_digest,
    with_own_digest,
)

__all__ = [
    "INPUTS",
    "SEAL_NAME",
    "SIGNATURE_NAME",
    "TOOL_FILES",
    "Seal",
    "broken_seals",
    "write_seal",
]

SEAL_NAME: Final = "steering_seal.json"
SIGNATURE_NAME: Final = "steering_seal.json.sig"
"""Where the signature of the seal is, if somebody made one."""

TOOL_FILES: Final = frozenset({".cache", ".git", ".gitattributes", ".gitignore", ".DS_Store"})
"""What git, clients of the Hub and Finder leave in a directory; nothing is loaded from there."""

INPUTS: Final = "inputs"
"""Folder of the prompts and suites that a directory was made with. It stays at home: it is neither
sealed nor published, and no loader reads it."""

_OWN_DIGEST: Final = "seal_sha256"


class SealedFile(Record):
    """One file that the manifest does not cover."""

    path: Inside
    sha256: str
    size: int
    """Bytes."""


class Seal(VersionedRecord):
    """The digests of the manifest and of every file that it does not cover."""

    seal_sha256: str = NO_DIGEST
    """SHA-256 of this very file with 64 zeros here; shows damage, not forgery."""
    manifest_sha256: str
    """Of the whole manifest file."""
    files: list[SealedFile]
    """Sorted by path."""

    @classmethod
    def read(cls, path: Path) -> "Seal":
        """Read a seal.

        Raises:
            ExportError: if it cannot be read, or is damaged.
        """
        try:
            raw = path.read_bytes()
            seal = cls.model_validate_json(raw)
        except OSError as error:
            raise ExportError(f"{path} cannot be read: {error.strerror}; {_AGAIN}") from error
        except ValidationError as error:
            raise ExportError(f"{path}: {first_problem(error)}; {_AGAIN}") from error
        if own_digest(raw, _OWN_DIGEST) != seal.seal_sha256:
            raise ExportError(f"{path} is damaged; {_AGAIN}")
        return seal


_AGAIN: Final = "if you trust the directory as it is, run `mars-export seal` on it"


def write_seal(directory: Path, *changed: str) -> Path:
    """Seal a steered directory as it is, or the part of it that was just written.

    Args:
        directory: Holds a manifest.
        changed: Paths that were written, a folder with a slash at its end. All else keeps its
            entry, so that damage there is still seen. Everything is sealed if none is given, or if
            there is no seal yet.

    Returns:
        Path of the seal. The same files give the same bytes.

    Raises:
        ExportError: if the manifest or, with `changed`, the present seal cannot be read.
        OSError: if a file cannot be read or written.
    """
    path, files = directory / SEAL_NAME, LocalFiles(directory)
    last = Seal.read(path) if changed and path.exists() else None

    folders = tuple(name for name in changed if name.endswith("/"))

    def is_changed(name: str) -> bool:
        return last is None or name in changed or name.startswith(folders)

    entries = {e.path: e for e in last.files if not is_changed(e.path)} if last else {}
    for name in filter(is_changed, _uncovered(files, Manifest.read(directory))):
        entries[name] = SealedFile(path=name, sha256=_sha256(files, name), size=files.sizes[name])
    seal = Seal(
        manifest_sha256=last.manifest_sha256 if last else _sha256(files, MANIFEST_NAME),
        files=[entries[name] for name in sorted(entries)],
    )
    write_atomically(path, with_own_digest(seal, _OWN_DIGEST))
    return path


def broken_seals(
    files: CheckpointFiles, manifest: Manifest, seal: Seal
) -> Iterator[tuple[str, str]]:
    """Paths of files that are not as they were sealed, each with what happened to it.

    Args:
        files: Of the directory or repository.
        manifest: Read from it.
        seal: Read from it.
    """
    if _sha256(files, MANIFEST_NAME) != seal.manifest_sha256:
        yield MANIFEST_NAME, "is not the one that was sealed"
    for entry in seal.files:
        if entry.path in files.irregular:
            continue  # which is reported as such
        if entry.path not in files.sizes:
            yield entry.path, "was removed after it was sealed"
        elif files.sizes[entry.path] != entry.size or _sha256(files, entry.path) != entry.sha256:
            yield entry.path, "was changed after it was sealed"
    for name in sorted(_uncovered(files, manifest) - {entry.path for entry in seal.files}):
        yield name, "was added after the directory was sealed"


def _uncovered(files: CheckpointFiles, manifest: Manifest) -> set[str]:
    """Plain files that the manifest does not cover, but for the seal, inputs and those of tools."""
    covered = {entry.path for entry in manifest.files}
    own = {MANIFEST_NAME, SEAL_NAME, SIGNATURE_NAME}
    others = files.sizes.keys() - covered - own
    left_out = TOOL_FILES | {INPUTS}
    return {name for name in others if PurePosixPath(name).parts[0] not in left_out}


def _sha256(files: CheckpointFiles, name: str) -> str:
    return files.sha256(name, lambda _: None)
