"""A run in several processes: the first one leads it, the others help where a model is asked.

The leader alone owns the workspace, writes, prints and publishes. What it calls `together` is run
by all: a calibration and an evaluation, which share their requests among the processes, or their
model. Nothing else is said between them, so that the stages do not know how many there are.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, TypeVar

from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.evaluation.judges.choice import judge_named
from mars_export.evaluation.reports import main_folder
from mars_export.families.loading import load_base, pick_device
from mars_export.families.processes import Processes, joined
from mars_export.pipeline.preflight import RunInputs, try_model
from mars_export.pipeline.settings import Settings

if TYPE_CHECKING:
    from mars_export.evaluation.report import Report
    from mars_export.methods.base import Artefact

__all__ = ["assist", "calibration_task", "dismiss", "evaluation_task", "together"]

_Result = TypeVar("_Result")
_SILENT: Final[Tick] = lambda _done, _total: None  # noqa: E731


def together(task: Callable[[Tick], _Result], tick: Tick) -> _Result:
    """Run a task in all processes, from the first one.

    Args:
        task: What can be pickled; it gives the same in all of them.
        tick: Of the first process.
    """
    with joined() as processes:
        processes.first(task)
        return task(tick)


def assist(processes: Processes) -> None:
    """Run what the first process calls `together`, until it needs nothing more."""
    while (task := processes.first(None)) is not None:
        task(_SILENT)


def dismiss(processes: Processes) -> None:
    """Let the others end."""
    processes.first(None)


def calibration_task(job: RunInputs, settings: Settings) -> Callable[[Tick], Artefact]:
    """The task of loading the base and calibrating it."""
    return partial(_calibrate, job, settings)


def evaluation_task(
    checkpoint: Path, job: RunInputs, settings: Settings
) -> Callable[[Tick], Report]:
    """The task of evaluating what was written."""
    return partial(_evaluate, checkpoint, job, settings)


def _calibrate(job: RunInputs, settings: Settings, tick: Tick) -> Artefact:
    from mars_export.calibration.data import MeasurementOptions
    from mars_export.methods.calibrate import calibrate

    with joined() as processes:
        _require_seen(job.base, processes)
        device = processes.place(pick_device(settings.where))
    model, processor = load_base(
        job.base,
        job.family,
        dtype=settings.dtype,
        device=device,
        quantization=job.quantization,
    )
    try_model(model, processor, job.base, job.family)
    return calibrate(
        model,
        processor,
        prompts=job.prompts,
        modalities=job.family.modalities,
        method=settings.method,
        options=settings.method_options,
        measurement=MeasurementOptions(
            batch_size=settings.batch_size,
            seed=settings.seed,
            kinds=settings.kinds,
            thinking=settings.thinks,
        ),
        progress=tick,
        quantization=job.quantization,
        tuning=job.tuning,
    )


def _evaluate(checkpoint: Path, job: RunInputs, settings: Settings, tick: Tick) -> Report:
    from mars_export.pipeline.evaluation import evaluate

    with joined() as processes:
        _require_seen(checkpoint, processes)
    return evaluate(
        checkpoint,
        job.suite,
        settings.options,
        judge=judge_named(settings.judge, settings.device),
        calibration_prompts=job.prompts.prompts,
        progress=tick,
        folder=main_folder(checkpoint),
        checked=True,
    )


def _require_seen(directory: Path, processes: Processes) -> None:
    """Refuse processes on machines that do not see what the first one works on."""
    if not directory.is_dir():
        raise ExportError(
            f"process {processes.rank} sees no {directory}; processes on several machines need "
            "one file system for the model (HF_HOME), the output and the suites"
        )
