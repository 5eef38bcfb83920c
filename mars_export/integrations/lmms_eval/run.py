"""Measuring utility: both arms on the same weights, or logs that are there already."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Arm
from mars_export.evaluation.utility import UTILITY_NAME, TaskUtility, Utility
from mars_export.integrations.lmms_eval.compare import compare
from mars_export.integrations.lmms_eval.log import find_log

__all__ = ["MARGIN", "from_logs", "measure"]

MARGIN: Final = 0.01
"""Acceptable loss: one point of accuracy."""

_ARMS: Final[tuple[Arm, ...]] = ("off", "on")


def measure(
    directory: Path,
    tasks: Sequence[str],
    *,
    margin: float = MARGIN,
    limit: int | None = None,
    batch_size: int = 8,
    device: str = "auto",
    include: Path | None = None,
) -> Utility:
    """Run tasks of lmms-eval with steering off and on, and write `evaluation/utility.json`.

    Its logs stay in `evaluation/utility/off` and `evaluation/utility/on`.

    Raises:
        ExportError: The directory does not load or does not steer as calibrated, lmms-eval is not
            installed, or a task cannot be run.
    """
    from mars_export.evaluation.generation import load_calibrated
    from mars_export.evaluation.selfcheck import self_check
    from mars_export.families.loading import pick_device
    from mars_export.integrations.lmms_eval.engine import engine_name, run_tasks

    manifest = Manifest.read(directory)
    engine = engine_name()
    loaded = load_calibrated(directory, manifest.calibration, pick_device(device))
    check = self_check(loaded, manifest)
    if not check.active:
        raise ExportError(f"{directory} does not steer as calibrated: {check.detail}")
    folders = {arm: directory / "evaluation" / "utility" / arm for arm in _ARMS}
    for arm, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)  # lmms-eval appends to what it finds
        run_tasks(loaded, arm, tasks, folder, limit=limit, batch_size=batch_size, include=include)
    return from_logs(directory, tasks, folders["off"], folders["on"], margin, engine)


def from_logs(
    directory: Path,
    tasks: Sequence[str],
    off: Path,
    on: Path,
    margin: float = MARGIN,
    engine: str = "log",
) -> Utility:
    """Compare logs that lmms-eval left in two folders, and write `evaluation/utility.json`.

    Raises:
        ExportError: The directory is not a steered checkpoint, or a log is missing or malformed.
    """
    manifest = Manifest.read(directory)
    found: list[TaskUtility] = [
        compare(task, find_log(off, task), find_log(on, task), margin) for task in tasks
    ]
    utility = Utility(steering_sha256=manifest.steering_sha256, engine=engine, tasks=found)
    write_atomically(directory / UTILITY_NAME, utility.model_dump_json(indent=2) + "\n")
    return utility
