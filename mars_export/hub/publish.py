"""Publishes a steered directory in one commit."""

from collections.abc import Callable
from pathlib import Path

from huggingface_hub import HfApi
from huggingface_hub.errors import FileDuplicationError, HfHubHTTPError, HFValidationError
from huggingface_hub.utils._validators import validate_repo_id

from mars_export.checkpoint.manifest import BaseModelSource, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.hub.access import (
    access_of_base,
    find_destination,
    open_destination,
    require_rights,
)
from mars_export.hub.commit import Commit, prepare_commit
from mars_export.hub.hub_errors import hub_errors
from mars_export.hub.readiness import require_ready
from mars_export.methods import method_named

__all__ = ["check_destination", "destination_of", "push", "require_name"]


def destination_of(directory: Path, repo_id: str | None = None) -> str:
    """Full name of the repository that a steered directory goes to.

    Args:
        directory: Steered directory.
        repo_id: `org/name` or `name`; None for the base's name and the method's. The logged-in
            user owns a repository that names no owner.

    Raises:
        ExportError: if the directory has no manifest, the name cannot be one of a repository,
            nobody is logged in, or the Hub cannot be reached.
    """
    manifest, api = Manifest.read(directory), HfApi(library_name="mars-export")
    method = method_named(manifest.calibration.method)
    return _full_name(api, repo_id or method.checkpoint_name(manifest.base.name))


def check_destination(base: BaseModelSource, name: str, private: bool | None) -> None:
    """Check that a checkpoint may be published there, before it is made. Nothing is created.

    Args:
        base: What the checkpoint is made from.
        name: `org/name`, or `name` of the logged-in user's.
        private: Whether a new repository is to be private.

    Raises:
        ExportError: if nobody is logged in, the token or the user may not write there, the name is
            none, or the repository is more open than the base, or holds something else.
    """
    api = HfApi(library_name="mars-export")
    target = _full_name(api, name)
    with hub_errors(base.repo or target, api.endpoint):
        access = access_of_base(api, base, lambda _: None)
    with hub_errors(target, api.endpoint):
        find_destination(api, target, access, private)
        require_rights(api.whoami(), target)


def require_name(name: str) -> None:
    """Refuse what can be the name of no repository. Nothing is asked of the Hub.

    Raises:
        ExportError: says what a name may be.
    """
    try:
        validate_repo_id(name)
    except HFValidationError as error:
        raise ExportError(
            f"{name} cannot be a repository: give ORG/NAME or NAME, in letters, digits, -, _ and ."
        ) from error


def _full_name(api: HfApi, name: str) -> str:
    require_name(name)
    with hub_errors("publishing", api.endpoint):  # for `org/name` too: a push needs a login
        user = api.whoami().get("name")
    if not isinstance(user, str) or not user:
        raise ExportError(
            f"{api.endpoint} does not say who is logged in: try again, and check HF_ENDPOINT and "
            "the proxy"
        )
    return name if "/" in name else f"{user}/{name}"


def push(
    directory: Path,
    repo_id: str | None = None,
    *,
    private: bool | None = None,
    overwrite: bool = False,
    note: Callable[[str], None] = lambda _: None,
    tick: Tick | None = None,
) -> str:
    """Publish a steered directory in one commit, as the logged-in user.

    Weights that already live in the base's repository are copied there by the server. A base that
    is private or gated gets a destination that is private, or gated too, before any file is
    committed.

    Args:
        directory: Complete steered directory: checkpoint, evaluation and card.
        repo_id: `org/name` or `name`; None for the base's name and the method's.
        private: Whether a new repository is private; None for the base's and the account's rule.
        overwrite: Whether to replace the content of a repository that is no steered checkpoint.
        note: Takes one line about each step.
        tick: Told how many bytes of the directory have been checked, and how many there are.

    Returns:
        Address of the commit. The present one if nothing had changed.

    Raises:
        ExportError: if the directory is not fit to be published, or the Hub refuses.
    """
    manifest = require_ready(directory, tick)
    api = HfApi(library_name="mars-export")
    target = destination_of(directory, repo_id)
    source = manifest.base.repo or target
    with hub_errors(source, api.endpoint):
        access = access_of_base(api, manifest.base, note)
    with hub_errors(target, api.endpoint):
        destination = open_destination(api, target, access, private, overwrite=overwrite)
        commit = prepare_commit(api, directory, manifest, destination)
        if commit.empty:
            note(f"{target} is up to date")
            return f"{api.endpoint}/{target}/commit/{destination.sha}"
        return _publish(api, target, commit, manifest, destination.sha, note)


def _publish(
    api: HfApi,
    target: str,
    commit: Commit,
    manifest: Manifest,
    parent: str | None,
    note: Callable[[str], None],
) -> str:
    message = f"Pre-steered checkpoint of {manifest.base.name}"
    note(f"{target}: {len(commit.copied)} copied on the Hub, {len(commit.uploaded)} to upload")
    try:
        info = api.create_commit(
            target, commit.operations(), commit_message=message, parent_commit=parent
        )
    except (FileDuplicationError, HfHubHTTPError) as error:
        if not _copy_refused(error):
            raise
        note(f"the Hub refused to copy from {manifest.base.repo}: uploading the weights")
        info = api.create_commit(
            target, commit.operations(copy=False), commit_message=message, parent_commit=parent
        )
    return str(info.commit_url)


def _copy_refused(error: FileDuplicationError | HfHubHTTPError) -> bool:
    """Whether the server-side copy failed; it comes before the commit, so nothing has changed."""
    if isinstance(error, FileDuplicationError):
        return True
    return str(error.response.url).endswith("/lfs-files/duplicate")
