"""All checks in order, over a directory or a repository."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from mars_export.checkpoint.files import CheckpointFiles, LocalFiles
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.paths import exists, is_dir, named
from mars_export.common.problems import near_file
from mars_export.common.progress import Tick
from mars_export.hub.base import looks_like_path
from mars_export.hub.repository import Repository
from mars_export.verification import signature
from mars_export.verification.behavior import behaves
from mars_export.verification.checks import CHECKS, SEALED
from mars_export.verification.report import (
    Check,
    CheckFailedError,
    CheckSkippedError,
    Verification,
)
from mars_export.verification.subject import Subject

__all__ = ["verify"]

_RUN: Final = "behavior"


def verify(
    target: str | Path,
    *,
    revision: str | None = None,
    offline: bool = False,
    run: bool = False,
    device: str = "auto",
    public_key: str | Path | None = None,
    progress: Tick | None = None,
) -> Verification:
    """Check a steered checkpoint without executing anything that it holds.

    Of a repository the weights are not downloaded: the Hub publishes their SHA-256.

    Args:
        target: Directory, or Hub repository `org/name`.
        revision: Branch, tag or commit of a repository.
        offline: Whether to leave out what only the Hub can tell: the base's published files.
        run: Whether to load a directory afterwards, if all else passed, and repeat the probes of
            its calibration. This executes its code, which is ours by then.
        device: Torch device for `run`.
        public_key: PEM file of the one who must have signed the seal.
        progress: Called with (bytes compared, bytes in all).

    Raises:
        ExportError: if there is no steered checkpoint with a readable manifest, or the key is none.
    """
    key = None if public_key is None else signature.readable_key(Path(public_key))
    files = _files(str(target), revision, offline=offline, run=run)
    manifest = Manifest.read(files.fetch(MANIFEST_NAME).parent)
    subject = Subject(files, manifest, offline, progress)
    checks = [_check(name, partial(check, subject)) for name, check in CHECKS]
    if key is not None:
        signed = partial(signature.seal_is_signed, key, subject)
        sealed = next(i for i, check in enumerate(checks) if check.name == SEALED)
        checks.insert(sealed + 1, _check("signature", signed))
    if run and isinstance(files, LocalFiles):
        checks.append(_behavior(checks, files.root, manifest, device))
    return Verification(
        target=str(target),
        commit=files.commit if isinstance(files, Repository) else None,
        base=manifest.base.name,
        base_commit=manifest.base.revision,
        steering_sha256=manifest.steering_sha256,
        checks=checks,
        notes=[*manifest.calibration.record.missed, *manifest.calibration.record.findings],
    )


def _files(target: str, revision: str | None, *, offline: bool, run: bool) -> CheckpointFiles:
    directory = named(target)
    if is_dir(directory):
        if revision is not None:
            raise ExportError(f"{target} is a local directory: --revision is for Hub repositories")
        if not (directory / MANIFEST_NAME).is_file():
            Manifest.read(directory)  # says what is missing
        return LocalFiles(directory)
    if looks_like_path(target) or "/" not in target:  # a steered repository has an owner
        problem = "is a file" if exists(directory) else "is no directory here"
        advice = near_file(directory) or ": give a steered directory, or a repository ORG/NAME"
        raise ExportError(f"{target} {problem}{advice}")
    if offline or run:
        option = "--offline" if offline else "--run"
        raise ExportError(f"{option} needs a directory: download {target} and verify that")
    repository = Repository(target, revision)
    if MANIFEST_NAME not in repository.files:
        raise ExportError(f"{target} is not a steered checkpoint: it has no {MANIFEST_NAME}")
    return repository


def _check(name: str, check: Callable[[], str]) -> Check:
    """The answer of a check; whatever goes wrong in it means that it has not passed."""
    try:
        return Check(name=name, status="passed", detail=check())
    except CheckSkippedError as reason:
        return Check(name=name, status="skipped", detail=str(reason))
    except CheckFailedError as error:
        return _failed(name, error.problems)
    except ExportError as error:
        return _failed(name, (str(error),))
    except Exception as error:  # files made to break a reader must not pass
        said = " ".join(str(error).split())[:300]
        return _failed(name, (f"could not be checked ({type(error).__name__}: {said})",))


def _failed(name: str, problems: tuple[str, ...]) -> Check:
    more = f" and {len(problems) - 1} more" if len(problems) > 1 else ""
    return Check(name=name, status="failed", detail=problems[0] + more, problems=problems)


def _behavior(checks: list[Check], directory: Path, manifest: Manifest, device: str) -> Check:
    if any(check.status == "failed" for check in checks):
        return Check(name=_RUN, status="skipped", detail="not run, as a check failed")
    return _check(_RUN, partial(behaves, directory, manifest, device))
