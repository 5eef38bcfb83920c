"""A run in several processes: the first one leads it, the others help where a model is asked.

The leader alone owns the workspace, writes, prints and publishes. A `Task` that it runs `together`
is run by all: a calibration or an evaluation, which share their requests among the processes, or
their model. Nothing else is said between them, so that the stages do not know how many there are.
"""

from __future__ import annotations

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final, Generic, NamedTuple, TypeVar

from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.evaluation.judges.choice import judge_named
from mars_export.evaluation.reports import main_folder
from mars_export.families.loading import load_base, pick_device
from mars_export.families.processes import Processes, joined
from mars_export.pipeline.checks import try_model
from mars_export.pipeline.preflight import RunInputs
from mars_export.pipeline.settings import Settings

if TYPE_CHECKING:
    from mars_export.evaluation.report import Report
    from mars_export.methods.base import Artefact

__all__ = ["Task", "assist", "calibration_task", "dismiss", "evaluation_task", "together"]

_Result = TypeVar("_Result")


class Task(NamedTuple, Generic[_Result]):
    """What all processes run, with the same result.

    directory: what they work on, which all have to see. run: what can be pickled.
    """

    directory: Path
    run: Callable[[Tick], _Result]


def together(task: Task[_Result], tick: Tick) -> _Result:
    """Run a task in all processes, from the first one.

    Args:
        task: What to run.
        tick: Of the first process.
    """
    with joined() as processes:
        if processes.count > 1:
            processes.first(_Call(task.directory, pickle.dumps(task.run)))
        return task.run(tick)


def assist(processes: Processes) -> None:
    """Run what the first process runs `together`, until it needs nothing more."""
    while isinstance(call := processes.received(), _Call):
        _require_seen(call.directory, processes.rank)
        pickle.loads(call.run)(_silent)


def dismiss(processes: Processes) -> None:
    """Let the others end."""
    processes.first(_NO_MORE)


def _silent(_done: int, _total: int) -> None:
    """The progress of those that do not print."""


class _Call(NamedTuple):
    """A task for the others; `run` stays packed until they see the directory: it opens suites."""

    directory: Path
    run: bytes


_NO_MORE: Final = "no more"


def calibration_task(job: RunInputs, settings: Settings) -> Task[Artefact]:
    """Loads the base and calibrates it."""
    return Task(job.base, partial(_calibrate, job, settings))


def evaluation_task(checkpoint: Path, job: RunInputs, settings: Settings) -> Task[Report]:
    """Evaluates what was written."""
    return Task(checkpoint, partial(_evaluate, checkpoint, job, settings))


def _calibrate(job: RunInputs, settings: Settings, tick: Tick) -> Artefact:
    from mars_export.calibration.data import MeasurementOptions
    from mars_export.methods.calibrate import calibrate

    with joined() as processes:
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


def _require_seen(directory: Path, rank: int) -> None:
    """Refuse processes on machines that do not see what the first one works on."""
    if not directory.is_dir():
        raise ExportError(
            f"process {rank} sees no {directory}; processes on several machines need "
            "one file system for the model (HF_HOME), the output and the suites"
        )
