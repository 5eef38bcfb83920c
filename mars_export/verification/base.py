"""Checks against the base model: what its repository on the Hub publishes of its files."""

import hashlib
import re
from typing import Final

from huggingface_hub.errors import GatedRepoError

from mars_export.checkpoint.manifest import FileEntry
from mars_export.checkpoint.modeling import MODELING_NAME
from mars_export.checkpoint.tensors import TENSORS_NAME
from mars_export.checkpoint.writer import CALIBRATION, RENAMED
from mars_export.common.errors import ExportError
from mars_export.families.directory import INDEX, SINGLE, read_json
from mars_export.hub.hub_errors import unreachable
from mars_export.hub.repository import Repository
from mars_export.verification.report import CheckFailedError, CheckSkippedError
from mars_export.verification.subject import Subject, native_config

__all__ = ["config_is_the_bases", "files_are_the_bases", "weights_are_the_bases"]

_WRITTEN: Final = {"config.json", INDEX, MODELING_NAME, TENSORS_NAME, *CALIBRATION}


def weights_are_the_bases(subject: Subject) -> str:
    """Every shard but the steering's has the SHA-256 that the Hub publishes for the base's."""
    base = _base(subject)
    shards = [e for e in _from_base(subject) if e.path.endswith(".safetensors")]
    _compare(subject, base, shards)
    return f"{len(shards)} shards are those of {_named(subject)}"


def files_are_the_bases(subject: Subject) -> str:
    """Tokenizer, processor and other files that were copied, the same way."""
    base = _base(subject)
    others = [e for e in _from_base(subject) if not e.path.endswith(".safetensors")]
    _compare(subject, base, others)
    return f"{len(others)} files are those of {_named(subject)}"


def config_is_the_bases(subject: Subject) -> str:
    """config.json without the steering is the base's."""
    raw = read_json(_base(subject).fetch("config.json"))
    if not isinstance(raw, dict):
        raise CheckFailedError(f"config.json of {_named(subject)} is no object")
    source = subject.manifest.base
    native = native_config(subject.config, source.model_type, source.architecture)
    text, theirs = native.get("text_config", native), raw.get("text_config", raw)
    if subject.family.activation not in theirs:  # a default that had to be written to be guarded
        text.pop(subject.family.activation, None)
    keys = (native.keys() | raw.keys()) - {"architectures"}  # ours are checked, theirs are not used
    differing = sorted(key for key in keys if native.get(key) != raw.get(key))
    if differing:
        raise CheckFailedError(
            f"config.json differs from that of {_named(subject)} in {', '.join(differing)}"
        )
    return f"but for the steering it is that of {_named(subject)}"


def _base(subject: Subject) -> Repository:
    """The base's repository at the stated commit.

    Raises:
        CheckSkippedError: if there is none, it may not be asked, or the Hub does not answer.
        CheckFailedError: if the repository cannot be seen, so that nothing can be said of it.
    """
    repo, revision = subject.manifest.base.repo, subject.manifest.base.revision
    if repo is None:
        raise CheckSkippedError("the base was a local directory: nothing published to compare with")
    if subject.offline:
        raise CheckSkippedError("offline: the Hub was not asked about the base")
    if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
        raise CheckFailedError(f"the manifest names no commit of {repo}")
    if "base" not in subject.asked:
        subject.asked["base"] = _look_up(repo, revision)
    found = subject.asked["base"]
    if isinstance(found, Repository):
        return found
    raise found


def _look_up(repo: str, revision: str | None) -> Repository | CheckSkippedError | CheckFailedError:
    try:
        return Repository(repo, revision)
    except ExportError as error:
        cause = error.__cause__
        silent = isinstance(cause, Exception) and unreachable(cause)
        if silent or isinstance(cause, GatedRepoError):
            return CheckSkippedError(str(error))
        return CheckFailedError(f"{error} (--offline leaves this check out)")


def _from_base(subject: Subject) -> list[FileEntry]:
    """All but what an export writes itself, whatever origin the manifest states."""
    return [entry for entry in subject.manifest.files if entry.path not in _WRITTEN]


def _compare(subject: Subject, base: Repository, entries: list[FileEntry]) -> None:
    problems = []
    for entry in entries:
        single = entry.path == RENAMED[SINGLE] and SINGLE in base.files
        theirs = base.files.get(SINGLE if single else entry.path)
        if theirs is None:
            problems.append(f"{entry.path} is no file of {_named(subject)}")
        elif theirs.lfs is not None:
            if theirs.lfs.sha256 != entry.sha256:
                problems.append(f"{entry.path} is not the file of {_named(subject)}")
        elif theirs.blob_id != _git_id(subject.place.fetch(entry.path).read_bytes()):
            problems.append(f"{entry.path} is not the file of {_named(subject)}")
    if problems:
        raise CheckFailedError(*problems)


def _git_id(content: bytes) -> str:
    """How git, and so the Hub, names a small file."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def _named(subject: Subject) -> str:
    base = subject.manifest.base
    return f"{base.repo}@{(base.revision or '')[:8]}"
