"""Finds the base model: a local directory, or a Hub repository at one commit."""

import re
from dataclasses import dataclass
from fnmatch import fnmatch
from glob import escape
from pathlib import Path
from typing import Final

from huggingface_hub import HfApi
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    RepositoryNotFoundError,
)
from huggingface_hub.hf_api import ModelInfo

from mars_export.common.errors import ExportError
from mars_export.common.paths import exists, is_dir, named
from mars_export.common.problems import near_file
from mars_export.families.directory import is_legal
from mars_export.families.weights import INDEX, SINGLE, read_index
from mars_export.hub.hub_errors import garbled, hub_errors, unreachable
from mars_export.hub.license import BaseCard, read_card

__all__ = ["BaseDirectory", "cached_repository", "fetch_base", "looks_like_path"]

_COMPANIONS: Final = (
    *("*.json", "*.txt", "*.model", "*.jinja", "*.py"),
    "README.md",
)
"""What is downloaded beside the weights. Python files show that a base needs its own code."""
_CACHED: Final = ("config.json", "model*.safetensors*")
"""What the cache must hold when the Hub cannot be asked."""

_ADAPTER: Final = "adapter_config.json"
_TEMPLATES: Final = "additional_chat_templates/"
_SNAPSHOT: Final = re.compile(r"models--([^/\\]+)[/\\]snapshots[/\\]([0-9a-f]{40})$")
"""End of the path of a snapshot in the cache of huggingface_hub."""
_LOOKS_LIKE_PATH: Final = re.compile(r"[./~\\]|.*[/\\].*[/\\]|[A-Za-z]:")


@dataclass(frozen=True)
class BaseDirectory:
    """A base model on this machine."""

    path: Path
    repo: str | None
    """Hub repository, `org/name`; None for a local directory."""
    revision: str | None
    """Commit of that repository."""
    name: str
    """Repository or directory name, for people."""
    gated: str | bool
    """`auto` or `manual` when the Hub asks people to accept terms first."""
    private: bool
    card: BaseCard


def fetch_base(model: str, revision: str | None = None) -> BaseDirectory:
    """Find a base model, downloading it if it is a Hub repository.

    Without network a repository that is already in the cache is used; whether it is gated is then
    read from its card, and looked up again before a push.

    Args:
        model: Directory or Hub repository `org/name`.
        revision: Branch, tag or commit of the repository; None for its default branch.

    Raises:
        ExportError: if there is no such model, it may not be read, or it holds no complete
            safetensors weights.
    """
    local = named(model)
    if model.strip() and is_dir(local):
        return _local(local, revision)
    if not model.strip():
        raise ExportError("the name of the model is blank: give a directory or ORG/NAME")
    repo, at, stated = model.partition("@")
    if at and not looks_like_path(model):
        raise ExportError(f"{model}: give the model as {repo} and --revision {stated}")
    if looks_like_path(model):
        problem = "is a file" if exists(local) else "is no directory here"
        advice = near_file(local) or ": give a model directory or a repository ORG/NAME"
        raise ExportError(f"{model} {problem}{advice}")
    return _download(model, revision)


def looks_like_path(model: str) -> bool:
    """Whether a name that is no directory can only have been meant as one."""
    return bool(_LOOKS_LIKE_PATH.match(model)) or exists(named(model))


def _local(path: Path, revision: str | None) -> BaseDirectory:
    if revision is not None:
        raise ExportError(f"{path} is a local directory: --revision is for Hub repositories")
    require_weights(str(path), [file.name for file in path.iterdir()])
    if cached := cached_repository(path):
        return _snapshot(path, *cached)
    card = read_card(path)
    return BaseDirectory(path, None, None, path.resolve().name, card.gated, False, card)


def cached_repository(path: Path) -> tuple[str, str] | None:
    """Repository and commit of a snapshot in the cache of huggingface_hub, from its path."""
    match = _SNAPSHOT.search(str(path.absolute()))
    return (match[1].replace("--", "/"), match[2]) if match else None


def _snapshot(path: Path, repo: str, commit: str) -> BaseDirectory:
    """A snapshot that was named by its path; the Hub is asked who may see it, if it answers."""
    api = HfApi(library_name="mars-export")
    card = read_card(path)
    gated: str | bool = card.gated
    private = False
    try:
        info = api.model_info(repo, revision=commit)
    except RepositoryNotFoundError:
        private = True
    except Exception as error:
        if not (unreachable(error) or garbled(error) or isinstance(error, HfHubHTTPError)):
            raise
    else:
        gated, private = info.gated or gated, bool(info.private)
    return BaseDirectory(path, repo, commit, repo, gated, private, card)


def _download(repo: str, revision: str | None) -> BaseDirectory:
    api = HfApi(library_name="mars-export")
    with hub_errors(repo, api.endpoint):
        info = _look_up(api, repo, revision)
        if info is None:
            return _from_cache(api, repo, revision)
        files = [file.rfilename for file in info.siblings or []]
        require_weights(repo, files)
        wanted = _model_files(api, repo, info.sha, files)
        patterns = [escape(name) for name in wanted]
        # By the user's revision, so that the cache knows it when there is no network.
        path = Path(api.snapshot_download(repo, revision=revision, allow_patterns=patterns))
    if path.name != info.sha:
        raise ExportError(f"{repo} changed on the Hub during the download: run the command again")
    absent = next((name for name in wanted if not (path / name).is_file()), None)
    if absent is not None:
        raise ExportError(f"{repo}: the Hub did not give {absent}: run the command again")
    gated, private = info.gated or False, bool(info.private)
    return BaseDirectory(path, repo, info.sha, repo, gated, private, read_card(path))


def _look_up(api: HfApi, repo: str, revision: str | None) -> ModelInfo | None:
    """What the Hub says of a repository; None when the Hub cannot be reached."""
    try:
        return api.model_info(repo, revision=revision)
    except GatedRepoError:
        raise
    except RepositoryNotFoundError as error:
        raise ExportError(
            f"{repo} is neither a directory here nor a model on the Hub that you can see: "
            "check the name, or run `hf auth login` if it is private"
        ) from error
    except Exception as error:
        if unreachable(error):
            return None
        raise


def _from_cache(api: HfApi, repo: str, revision: str | None) -> BaseDirectory:
    try:
        path = Path(
            api.snapshot_download(
                repo, revision=revision, allow_patterns=list(_CACHED), local_files_only=True
            )
        )
    except LocalEntryNotFoundError as error:
        raise ExportError(
            f"{repo} is no directory here, and the Hub cannot be reached for a repository of that "
            "name: check the name, the network, and whether HF_HUB_OFFLINE is set"
            + near_file(Path(repo))
        ) from error
    require_weights(repo, [file.name for file in path.iterdir()])
    card = read_card(path)
    # The folder of a snapshot is named after its commit.
    return BaseDirectory(path, repo, path.name, repo, card.gated, False, card)


def _model_files(api: HfApi, repo: str, commit: str | None, files: list[str]) -> list[str]:
    """Files that make up the model; some repositories hold the weights in several formats."""
    top = [file for file in files if "/" not in file or file.startswith(_TEMPLATES)]
    companions = [
        file for file in top if is_legal(file) or any(fnmatch(file, kind) for kind in _COMPANIONS)
    ]
    if SINGLE in top:
        return [*companions, SINGLE]
    if INDEX not in top:
        return companions
    index = read_index(Path(api.hf_hub_download(repo, INDEX, revision=commit)))
    return [*companions, *sorted(set(index.values()))]


def require_weights(model: str, files: list[str]) -> None:
    """Check that a model's files hold a Transformers model with safetensors weights.

    Raises:
        ExportError: if the configuration or the weights are missing.
    """
    if SINGLE in files or INDEX in files:
        if "config.json" not in files:
            raise ExportError(f"{model} has no config.json: give a Transformers model")
        if _ADAPTER in files:
            raise ExportError(
                f"{model} also holds an adapter ({_ADAPTER}), which Transformers adds to the "
                "weights when it loads them: merge it, or move it into a folder of its own"
            )
        return
    if _ADAPTER in files:
        raise ExportError(f"{model} holds an adapter only: merge it into its base model first")
    if any(file.endswith((".bin", ".pt", ".pth")) for file in files):
        raise ExportError(
            f"{model} has pickled weights only (.bin): load it with Transformers and "
            "save it again with save_pretrained, which writes safetensors"
        )
    raise ExportError(f"{model} has no safetensors weights: give a Transformers model")
