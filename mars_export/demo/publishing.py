"""`mars-export demo DIR --space`: from the name of a Space to its folder, and onto the Hub."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import RepositoryNotFoundError

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.demo import require_extra
from mars_export.demo.space import SPACE_FILES, checkpoint_of, write_space
from mars_export.families.directory import digest
from mars_export.hub import require_name
from mars_export.hub.access import Access, access_of_base
from mars_export.hub.hub_errors import hub_errors
from mars_export.hub.repository import Repository

__all__ = ["make_space"]

_OURS: Final = {*SPACE_FILES, ".gitattributes"}


def make_space(
    directory: Path,
    space: str,
    repo: str | None = None,
    output: Path | None = None,
    *,
    publish: bool = False,
    private: bool | None = None,
) -> tuple[Path, str | None]:
    """Write the folder of a Space, and publish it if that is asked for.

    Args:
        directory: Steered checkpoint.
        space: `org/name` of the Space.
        repo: Repository of the checkpoint; None for the one that `push` gives it by default.
        output: Folder to write; None for one named as the Space.
        publish: Whether it goes to the Hub, where the checkpoint must be already.
        private: Whether a new Space is private; None for what the base and the account say.

    Returns:
        The folder, and the address on the Hub or None.

    Raises:
        ExportError: A name cannot be one of the Hub, the folder holds something else, the
            checkpoint is not published, or the Hub refuses.
    """
    manifest = Manifest.read(directory)
    for name in filter(None, (space, repo)):
        require_name(name)
        if "/" not in name:
            raise ExportError(f"{name} names no owner; give ORG/NAME")
    require_extra()
    repo = repo or checkpoint_of(manifest, space)
    if publish:
        _require_published(directory, repo)
    folder = write_space(directory, space, repo, output or Path(space.partition("/")[2]))
    return folder, _publish(folder, space, manifest, private) if publish else None


def _require_published(directory: Path, repo: str) -> None:
    """Refuse a checkpoint that is not on the Hub as it is here: the Space would not load it."""
    found = Repository(repo)
    if MANIFEST_NAME not in found.sizes or digest(found.fetch(MANIFEST_NAME)) != digest(
        directory / MANIFEST_NAME
    ):
        raise ExportError(
            f"{repo} does not hold {directory}; run `mars-export push {directory} {repo}` first, "
            "or name its repository with --checkpoint"
        )


def _publish(folder: Path, space: str, manifest: Manifest, private: bool | None) -> str:
    api = HfApi(library_name="mars-export")
    with hub_errors(manifest.base.repo or space, api.endpoint):
        access = access_of_base(api, manifest.base, lambda _: None)
    with hub_errors(space, api.endpoint):
        _open(api, space, access, private)
        api.create_commit(
            space,
            [CommitOperationAdd(name, folder / name) for name in SPACE_FILES],
            commit_message="Steering off and on, side by side",
            repo_type="space",
        )
    return f"{api.endpoint}/spaces/{space}"


def _open(api: HfApi, space: str, access: Access, private: bool | None) -> None:
    """Find or create the Space, private where the base is not open to everybody.

    Raises:
        ExportError: It holds something else, or is more open than it may be.
    """
    closed = private or access.restricted
    try:
        info = api.space_info(space)
    except RepositoryNotFoundError:
        api.create_repo(space, repo_type="space", space_sdk="gradio", private=closed or None)
        return
    if others := sorted({file.rfilename for file in info.siblings or []} - _OURS):
        raise ExportError(f"{space} holds something else ({others[0]}): choose another name")
    if closed and not info.private:
        raise ExportError(f"{space} is public and may not be: make it private on the Hub")
