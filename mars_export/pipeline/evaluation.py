"""Evaluation of a steered directory, from the names of the suites to every file that is written."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.common.progress import Tick
from mars_export.evaluation import evaluate as evaluation
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.overlap import find_prompts
from mars_export.evaluation.report import Report
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.integrations.every_eval_ever import write_every_eval_ever

__all__ = ["evaluate", "is_first_process", "prompts_at_hand"]


def evaluate(
    directory: Path,
    suite: Suite | Sequence[str] = (),
    options: EvaluationOptions | None = None,
    *,
    judge: Judge | None = None,
    calibration_prompts: Sequence[str] | None = None,
    progress: Tick | None = None,
) -> Report:
    """Measure a steered directory, write `evaluation/` and seal it, as `mars-export evaluate` does.

    A killed run continues where it stopped. If the self-check finds that steering is not active,
    the report holds no number of a steered arm; the caller decides what to make of it.

    Args:
        directory: Steered checkpoint.
        suite: What to run: a suite, or names and files as for `open_suites`.
        options: How to run it; the defaults if None.
        judge: Of the answers; None for the rules.
        calibration_prompts: What the calibration was made from, to be compared with the requests;
            None to look for them in the package and in the files of `suite`.
        progress: Called with (answers done, answers in all).

    Raises:
        ExportError: for everything that the user can fix; see `evaluation.evaluate`.
    """
    names: Sequence[str] = () if isinstance(suite, Suite) else suite
    suite = suite if isinstance(suite, Suite) else open_suites(names)
    if calibration_prompts is None:
        calibration_prompts = prompts_at_hand(directory, names)
    report = evaluation.evaluate(
        directory,
        suite,
        options,
        judge=judge,
        calibration_prompts=calibration_prompts,
        progress=progress,
    )
    if is_first_process():
        if report.self_check.active:
            write_every_eval_ever(directory, report)
        write_seal(directory, "evaluation/")
    return report


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"


def prompts_at_hand(directory: Path, names: Sequence[str]) -> Sequence[str]:
    """What a directory was calibrated on, as far as the package or the files of suites hold it.

    Args:
        directory: Steered checkpoint.
        names: Suites, as for `open_suites`.
    """
    record = Manifest.read(directory).calibration
    files = (Path(name.rpartition("=")[2]).expanduser() for name in names)
    places: Iterable[Path | None] = (*filter(Path.is_file, files), None)
    candidates = (find_prompts(record, place) for place in places)
    return next(filter(None, candidates), ())
