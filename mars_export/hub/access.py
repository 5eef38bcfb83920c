"""Who may see the base model, and so who may see what is made of it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from huggingface_hub import HfApi
from huggingface_hub.errors import RepositoryNotFoundError
from huggingface_hub.hf_api import ModelInfo

from mars_export.checkpoint.manifest import MANIFEST_NAME, BaseModelSource
from mars_export.common.errors import ExportError

__all__ = [
    "Access",
    "access_of_base",
    "find_destination",
    "open_destination",
    "require_rights",
]


@dataclass(frozen=True)
class Access:
    """Restrictions of the base model that a copy must keep."""

    private: bool
    gated: Literal["auto", "manual", False]

    @property
    def restricted(self) -> bool:
        """Whether an open public repository would give away what the base does not."""
        return self.private or bool(self.gated)


def access_of_base(api: HfApi, base: BaseModelSource, note: Callable[[str], None]) -> Access:
    """Restrictions of the base: as recorded at export, and as they are on the Hub now."""
    private, gated = base.private, base.gated
    if base.repo is not None:
        try:
            info = api.model_info(base.repo)
        except RepositoryNotFoundError:
            note(f"{base.repo} can no longer be seen: treated as private")
            private = True
        else:
            private, gated = private or bool(info.private), info.gated or gated
    return Access(private, "auto" if gated == "auto" else "manual" if gated else False)


def open_destination(
    api: HfApi, repo_id: str, access: Access, private: bool | None, *, overwrite: bool
) -> ModelInfo:
    """Find or create the repository to push to, with its restrictions in place.

    Nothing has been committed when this raises.

    Raises:
        ExportError: if the repository would be more open than the base or than the user asked for,
            or holds something else than a steered checkpoint.
    """
    info = find_destination(api, repo_id, access, private, overwrite=overwrite)
    if info is not None:
        return info
    _create(api, repo_id, access, private)
    info = api.model_info(repo_id)
    _require_closed(info, access, private)
    return info


def find_destination(
    api: HfApi, repo_id: str, access: Access, private: bool | None, *, overwrite: bool = False
) -> ModelInfo | None:
    """The repository to push to, if it is there and may be pushed to; None if it is not there.

    Raises:
        ExportError: as `open_destination`.
    """
    if access.private and private is False:
        raise ExportError(f"the base model is private: {repo_id} must be private too")
    try:
        info = api.model_info(repo_id)
    except RepositoryNotFoundError:
        return None
    _require_closed(info, access, private)
    files = {file.rfilename for file in info.siblings or []} - {".gitattributes"}
    if files and MANIFEST_NAME not in files and not overwrite:
        raise ExportError(
            f"{repo_id} exists and is not a steered checkpoint (no {MANIFEST_NAME}): "
            "choose another name, or empty that repository first"
        )
    return info


def require_rights(user: dict[str, Any], repo_id: str) -> None:
    """Refuse a token or a user that cannot write to a repository, as far as the Hub says.

    Args:
        user: What `whoami` answers.
        repo_id: `org/name`.

    Raises:
        ExportError: if the token may only read, or the user is no writing member of the owner.
    """
    token = user.get("auth", {}).get("accessToken", {})
    if token.get("role") == "read":
        raise ExportError(
            f"your token of the Hugging Face Hub may only read, and {repo_id} is to be written: "
            "run `hf auth login` with one that may write"
        )
    owner = repo_id.split("/")[0]
    roles = {str(org.get("name")): org.get("roleInOrg") for org in user.get("orgs") or ()}
    if owner != user.get("name") and (owner not in roles or roles[owner] == "read"):
        raise ExportError(
            f"{repo_id}: you are {user.get('name')}, who may not write to {owner}; name another "
            "repository, or ask to be let in"
        )


def _create(api: HfApi, repo_id: str, access: Access, private: bool | None) -> None:
    # A restricted base: private from the first moment, opened only together with its gate.
    api.create_repo(repo_id, private=True if access.restricted else private)
    if access.gated and private is False:
        api.update_repo_settings(repo_id, gated=access.gated, private=False)


def _require_closed(info: ModelInfo, access: Access, private: bool | None) -> None:
    if info.private:
        return
    if private:
        raise ExportError(f"{info.id} is public: make it private on the Hub or choose another name")
    if access.private:
        raise ExportError(f"the base model is private and {info.id} is public: make it private")
    if access.gated and not info.gated:
        raise ExportError(
            f"the base model is gated and {info.id} is open: make it gated or private on the Hub"
        )
