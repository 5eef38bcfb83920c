"""The reports of a steered directory: the one that its card leads with, and others beside it.

The first evaluation is `evaluation/report.json`. One of another suite, judge or setting gets a
folder of its own below `evaluation/`, so that no report is lost to another. Free of torch.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mars_export.common.errors import ExportError
from mars_export.common.names import (
    EVALUATION,
    EXCHANGE_FILE,
    PAGE_FILE,
    REPORT_FILE,
    REPORT_NAME,
    SAMPLES_FILE,
)
from mars_export.common.record import first_problem
from mars_export.evaluation.report import Report

__all__ = ["FILES", "folder_for", "folder_of", "lead_with", "leading", "main_folder", "others"]

FILES: Final = (REPORT_FILE, SAMPLES_FILE, EXCHANGE_FILE, PAGE_FILE)
"""What an evaluation writes into its folder."""


def main_folder(directory: Path) -> Path:
    """Where the report is that the card leads with."""
    return directory / EVALUATION


def leading(directory: Path) -> Report | None:
    """The report that the card leads with; None where none of this version is there."""
    try:
        report = Report.model_validate_json((directory / REPORT_NAME).read_bytes())
    except (OSError, ValidationError):
        return None
    return report if report.self_check.active else None


def folder_for(directory: Path, suite: str, run: str) -> Path:
    """Where an evaluation goes, so that it replaces none but itself.

    Args:
        directory: Steered.
        suite: Name of the suite.
        run: Identity of all that the numbers depend on (`Report.run`).
    """
    present, own = leading(directory), _own_folder(directory, suite, run)
    alone = present is None and not (own / REPORT_FILE).exists()
    return main_folder(directory) if alone or (present and present.run == run) else own


def folder_of(directory: Path, report: Report) -> Path:
    """Where a report of this directory is."""
    return folder_for(directory, report.suite.name, report.run)


def others(directory: Path) -> Iterator[tuple[Path, Report]]:
    """The reports beside the one that the card leads with, each with its folder, oldest first.

    Raises:
        ExportError: if one cannot be read; what it shows may not be left out.
    """
    found = []
    for path in sorted(main_folder(directory).glob(f"*/{REPORT_FILE}")):
        try:
            found.append((path.parent, Report.model_validate_json(path.read_bytes())))
        except (OSError, ValidationError) as error:
            what = first_problem(error) if isinstance(error, ValidationError) else str(error)
            raise ExportError(f"{path}: {what}; or delete {path.parent}") from error
    yield from sorted(found, key=lambda item: item[1].created)


def lead_with(directory: Path, report: Report) -> None:
    """Make a report the one that the card leads with; the present one moves beside it.

    One that says that nothing steers does not lead. A call that was interrupted may be repeated.
    """
    folder, main, present = folder_of(directory, report), main_folder(directory), leading(directory)
    if folder == main or not report.self_check.active:
        return
    if present is not None:
        _move(main, _own_folder(directory, present.suite.name, present.run))
    _move(folder, main)
    if not any(folder.iterdir()):
        folder.rmdir()


def _move(source: Path, target: Path) -> None:
    """Move the files of a report, itself last: where it is, the report still counts as being."""
    target.mkdir(parents=True, exist_ok=True)
    for name in reversed(FILES):
        if (source / name).exists():
            (source / name).replace(target / name)


def _own_folder(directory: Path, suite: str, run: str) -> Path:
    name = re.sub(r"[^\w.-]+", "-", suite).strip(".-")[:40] or "suite"
    return main_folder(directory) / f"{name}-{run[:8]}"
