"""lmms-eval on a steered directory: both arms on the same weights, with steering switched."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import is_out_of_memory
from mars_export.common.installation import install_extra
from mars_export.common.names import UTILITY_LOGS
from mars_export.evaluation.generation import Loaded
from mars_export.evaluation.report import REFERENCE, STEERED
from mars_export.evaluation.selfcheck import load_checked
from mars_export.evaluation.utility import MARGIN, Utility
from mars_export.families.loading import pick_device
from mars_export.inputs.media import read_frames
from mars_export.inputs.requests import Media, Request
from mars_export.integrations.lmms_eval.comparison import from_logs

__all__ = ["engine_name", "measure", "run_tasks"]

_TOKENS: Final = 64
"""Longest answer where the task does not say."""


def measure(
    directory: Path,
    tasks: Sequence[str],
    *,
    margin: float = MARGIN,
    limit: int | None = None,
    batch_size: int = 16,
    device: str = "auto",
    include: Path | None = None,
) -> Utility:
    """Run tasks of lmms-eval with steering off and on, and write `evaluation/utility.json`.

    Its logs stay in `evaluation/utility/off` and `evaluation/utility/on`.

    Raises:
        ExportError: The directory does not load or does not steer as calibrated, lmms-eval is not
            installed, or a task cannot be run.
    """
    engine = engine_name()
    loaded = load_checked(directory, Manifest.read(directory), pick_device(device))
    folders = {arm: directory / UTILITY_LOGS / arm for arm in (REFERENCE, STEERED)}
    for arm, folder in folders.items():
        shutil.rmtree(folder, ignore_errors=True)  # lmms-eval appends to what it finds
        run_tasks(loaded, arm, tasks, folder, limit=limit, batch_size=batch_size, include=include)
    return from_logs(directory, tasks, folders[REFERENCE], folders[STEERED], margin, engine)


def engine_name() -> str:
    """Name and version of lmms-eval.

    Raises:
        ExportError: It is not installed, or does not import.
    """
    _lmms_eval()
    return f"lmms-eval {version('lmms-eval')}"


def run_tasks(
    loaded: Loaded,
    arm: str,
    tasks: Sequence[str],
    folder: Path,
    *,
    limit: int | None,
    batch_size: int,
    include: Path | None = None,
) -> None:
    """Run tasks in one arm and leave lmms-eval's per-sample logs in a folder.

    Args:
        loaded: The steered directory.
        arm: Whether to steer.
        tasks: Names that lmms-eval knows.
        folder: Where it writes.
        limit: Samples of each task, from the first; None for all.
        batch_size: Requests at once; fewer when memory runs out.
        include: Folder with further task files.

    Raises:
        ExportError: There is no such task, or it cannot be loaded or asks for likelihoods.
    """
    evaluator = _lmms_eval()
    from lmms_eval.loggers import EvaluationTracker
    from lmms_eval.tasks import TaskManager

    tracker = EvaluationTracker(output_path=str(folder))
    try:
        manager = TaskManager(include_path=str(include) if include else None)
        found = evaluator.simple_evaluate(
            model=_model(loaded, arm, batch_size),
            model_args=f"model=steering-{arm}",
            tasks=list(tasks),
            limit=limit,
            task_manager=manager,
            evaluation_tracker=tracker,
            log_samples=True,
            bootstrap_iters=0,
        )
    except (KeyError, ValueError, OSError, ConnectionError) as error:
        said = " ".join(str(error).split())
        raise ExportError(f"lmms-eval cannot run {', '.join(tasks)}: {said}") from error
    samples_by_task = found.pop("samples")
    moment = datetime.now(UTC).strftime("%Y%m%d_%H%M%S")
    tracker.save_results_aggregated(found, samples_by_task, moment)  # gives the logs their name
    for task, samples in samples_by_task.items():
        tracker.save_results_samples(task_name=task, samples=samples)


def _lmms_eval() -> Any:
    try:
        from lmms_eval import evaluator
    except (ImportError, RuntimeError) as error:  # a torchvision of another build raises the latter
        said = str(error).splitlines()[0]
        raise ExportError(
            f"lmms-eval is not installed, or does not import ({said}); run "
            f"`{install_extra('lmms')}` with the torchvision that fits your torch"
        ) from error
    return evaluator


def _model(loaded: Loaded, arm: str, batch_size: int) -> Any:
    """A model of lmms-eval that answers greedily through `Loaded`."""
    from lmms_eval.api.model import lmms

    class Steered(lmms):
        def generate_until(self, requests: Sequence[Any]) -> list[str]:
            asked = [_request(self.task_dict, *request.args) for request in requests]
            answers = _answers(loaded, arm, asked, batch_size)
            return [_cut(text, options) for text, (_, options) in zip(answers, asked, strict=True)]

        def loglikelihood(self, requests: Sequence[Any]) -> Any:  # noqa: ARG002
            raise ExportError("the task asks for likelihoods; choose one that generates")

        def generate_until_multi_round(self, requests: Sequence[Any]) -> Any:  # noqa: ARG002
            raise ExportError("the task has several rounds; choose one that generates once")

    return Steered()


def _request(
    documents: Any, prompt: str, options: dict[str, Any], visual: Any, number: int, task: str,
    split: str,
) -> tuple[Request, dict[str, Any]]:  # fmt: skip
    """A request of lmms-eval as ours; pictures come before the prompt, a video as frames."""
    shown = visual(documents[task][split][number]) if visual else []
    shown = [item for item in shown or [] if item is not None]
    text = prompt.replace("<image>", "").strip()
    if any(isinstance(item, str | Path) for item in shown):
        frames = read_frames(Path(shown[0]), f"{task} {number}")
        return Request(text, (Media("video", frames),)), options
    return Request(text, tuple(Media("image", item.convert("RGB")) for item in shown)), options


def _answers(
    loaded: Loaded,
    arm: str,
    asked: Sequence[tuple[Request, dict[str, Any]]],
    batch_size: int,
) -> list[str]:
    """Answers in order; a batch holds one modality and one length of answer."""
    kinds = [(r.modality, int(options.get("max_new_tokens", _TOKENS))) for r, options in asked]
    answers: dict[int, str] = {}
    for kind in dict.fromkeys(kinds):
        places = [place for place, one in enumerate(kinds) if one == kind]
        for start in range(0, len(places), batch_size):
            chosen = places[start : start + batch_size]
            texts = _generate(loaded, arm, [asked[place][0] for place in chosen], kind[1])
            answers.update(zip(chosen, texts, strict=True))
    return [answers[place] for place in range(len(asked))]


def _generate(loaded: Loaded, arm: str, batch: Sequence[Request], tokens: int) -> list[str]:
    try:
        answers = loaded.answer(loaded.inputs(batch), tokens, steered=arm == STEERED)
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error) or len(batch) == 1:
            raise
        half = len(batch) // 2
        return [
            text
            for part in (batch[:half], batch[half:])
            for text in _generate(loaded, arm, part, tokens)
        ]
    if arm == STEERED and not all(answers.steered):
        raise ExportError("a request of a utility task was not steered; export the model again")
    return answers.texts


def _cut(text: str, options: dict[str, Any]) -> str:
    """The answer up to the first stop string."""
    stops = options.get("until") or []
    for stop in [stops] if isinstance(stops, str) else stops:
        text = text.split(stop)[0] if stop else text
    return text.strip()
