"""The one commit that makes a repository equal to a steered directory."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from huggingface_hub import (
    CommitOperationAdd,
    CommitOperationCopy,
    CommitOperationDelete,
    HfApi,
)
from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError
from huggingface_hub.hf_api import ModelInfo, RepoFile

from mars_export.checkpoint.files import git_blob_id
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import SIGNATURE_NAME
from mars_export.families.directory import digest
from mars_export.hub.readiness import UNLISTED, published_files

__all__ = ["Commit", "prepare_commit"]

Operation = CommitOperationAdd | CommitOperationCopy | CommitOperationDelete

LOADED: Final = (".safetensors", ".bin", ".pt", ".json", ".py", ".jinja", ".model", ".txt")
"""A file of these kinds that the directory lacks could change what is loaded."""


@dataclass(frozen=True)
class Commit:
    """What is copied, uploaded and deleted; paths are relative to the repository."""

    directory: Path
    base: str | None
    """Repository that copies come from."""
    revision: str | None
    """Commit of that repository."""
    copied: dict[str, str]
    """Path to its path in the base repository; copied by the server."""
    uploaded: tuple[str, ...]
    deleted: tuple[str, ...]

    @property
    def empty(self) -> bool:
        """Whether the repository already equals the directory."""
        return not (self.copied or self.uploaded or self.deleted)

    def operations(self, *, copy: bool = True) -> list[Operation]:
        """Fresh operations for one commit; with `copy` False everything is uploaded."""
        uploaded = self.uploaded if copy else (*self.uploaded, *self.copied)
        operations: list[Operation] = [
            CommitOperationAdd(path, self.directory / path) for path in uploaded
        ]
        if copy:
            operations += [
                CommitOperationCopy(theirs, path, self.revision, self.base, "model")
                for path, theirs in self.copied.items()
            ]
        return operations + [CommitOperationDelete(path, False) for path in self.deleted]


def prepare_commit(
    api: HfApi, directory: Path, manifest: Manifest, destination: ModelInfo
) -> Commit:
    """Compare a directory with the repository it goes to and the one it came from."""
    paths = list(dict.fromkeys(published_files(directory, manifest)))
    remote = _files(api, destination.id, destination.sha, paths)
    digests = {entry.path: entry.sha256 for entry in manifest.files}
    changed = [p for p in paths if not _same(directory / p, digests.get(p), remote.get(p))]
    copied = _copies(api, manifest, set(changed))
    names = {file.rfilename for file in destination.siblings or []}
    return Commit(
        directory,
        manifest.base.repo,
        manifest.base.revision,
        copied,
        uploaded=tuple(path for path in changed if path not in copied),
        deleted=tuple(sorted(path for path in names - set(paths) if _stale(path))),
    )


def _copies(api: HfApi, manifest: Manifest, changed: set[str]) -> dict[str, str]:
    base = manifest.base
    entries = [e for e in manifest.files if e.origin == "base" and e.path in changed]
    if base.repo is None or base.revision is None or not entries:
        return {}
    sources = {entry.path: entry.base_path or entry.path for entry in entries}
    try:
        remote = _files(api, base.repo, base.revision, list(sources.values()))
    except (RepositoryNotFoundError, RevisionNotFoundError):
        return {}
    digests = {path: file.lfs.sha256 for path, file in remote.items() if file.lfs and file.xet_hash}
    return {e.path: sources[e.path] for e in entries if digests.get(sources[e.path]) == e.sha256}


def _files(
    api: HfApi, repo: str, revision: str | None, paths: Sequence[str]
) -> dict[str, RepoFile]:
    files = api.get_paths_info(repo, list(paths), revision=revision)
    return {file.path: file for file in files if isinstance(file, RepoFile)}


def _same(path: Path, sha256: str | None, remote: RepoFile | None) -> bool:
    if remote is None or remote.size != path.stat().st_size:
        return False
    if remote.lfs is not None:
        return remote.lfs.sha256 == (sha256 or digest(path))
    return remote.blob_id == git_blob_id(path.read_bytes())


def _stale(path: str) -> bool:
    folder, _, rest = path.partition("/")
    return (
        path.endswith(LOADED) or path == SIGNATURE_NAME
        if not rest
        else folder in (*UNLISTED, "calibration")
    )
