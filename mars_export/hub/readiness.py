"""Whether a steered directory may be published: complete, unchanged, evaluated, described."""

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mars_export.checkpoint.files import LocalFiles
from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.seal import SEAL_NAME, SIGNATURE_NAME, Seal, broken_seals
from mars_export.common.errors import ExportError
from mars_export.common.names import (
    ADAPTIVE_NAME,
    CARD_NAME,
    EVALUATION,
    EXCHANGE_NAME,
    PLOTS,
    REPORT_NAME,
    SAMPLES_NAME,
    UTILITY_NAME,
)
from mars_export.common.progress import Tick
from mars_export.evaluation.report import REFERENCE, STEERED, Report

__all__ = ["UNLISTED", "is_published", "published_files", "require_ready"]

UNLISTED: Final = (PLOTS, EVALUATION)
"""Folders written after the manifest."""
_LATER: Final = frozenset({CARD_NAME, REPORT_NAME, EXCHANGE_NAME, UTILITY_NAME, ADAPTIVE_NAME})
"""What is published of it, beside the pictures."""


def require_ready(directory: Path, tick: Tick | None = None) -> Manifest:
    """Check that a directory is fit to be published.

    Args:
        directory: Steered directory.
        tick: Called with the bytes that have been compared, and all of them.

    Raises:
        ExportError: naming the first thing that is missing or wrong.
    """
    manifest = Manifest.read(directory)
    if not manifest.base.license:
        raise ExportError(f"{directory / MANIFEST_NAME} names no license: export with --license ID")
    _require_evaluated(directory)
    card = directory / CARD_NAME
    if not card.is_file() or not card.read_text(encoding="utf-8").startswith("---\n"):
        raise ExportError(f"{card} is missing or has no metadata: run `mars-export` again")
    problems = verify_files(directory, tick)
    if problems:
        raise ExportError(f"{directory} cannot be published: {problems[0]}; export the model again")
    seal = Seal.read(directory / SEAL_NAME)
    for path, what in broken_seals(LocalFiles(directory), manifest, seal):
        if path == MANIFEST_NAME or is_published(path):
            raise ExportError(
                f"{directory} cannot be published: {path} {what}; if that was you, run "
                "`mars-export seal` on it"
            )
    return manifest


def is_published(path: str) -> bool:
    """Whether a file that the manifest does not cover is published; the others stay at home."""
    folder, _, name = path.rpartition("/")
    beside = folder.startswith(f"{EVALUATION}/") and f"{EVALUATION}/{name}" in _LATER
    return path in _LATER or beside or path.startswith(f"{PLOTS}/")


def published_files(directory: Path, manifest: Manifest) -> Iterator[str]:
    """Paths of everything to publish, relative to the directory.

    Stray files stay at home, and so do the single answers: those to harmful requests may do harm.
    The report that is published names their digest.
    """
    yield from (entry.path for entry in manifest.files)
    yield from (MANIFEST_NAME, SEAL_NAME)
    seal = Seal.read(directory / SEAL_NAME)
    later = [SIGNATURE_NAME, *(entry.path for entry in seal.files if is_published(entry.path))]
    for path in (directory / name for name in later):
        if path.is_file() and not path.is_symlink():
            yield path.relative_to(directory).as_posix()


def _require_evaluated(directory: Path) -> None:
    path = directory / REPORT_NAME
    try:
        report = Report.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ExportError(f"{directory} has not been evaluated: run `mars-export` again") from error
    except ValidationError as error:
        raise ExportError(f"{path} is not a valid report: evaluate the checkpoint again") from error
    if not report.self_check.active:
        raise ExportError(f"{directory}: steering is not active: {report.self_check.detail}")
    arms = {cell.arm for cell in report.cells}
    if not {REFERENCE, STEERED} <= arms or not (directory / SAMPLES_NAME).is_file():
        raise ExportError(f"{directory}: the evaluation is incomplete: run `mars-export` again")
