"""Evaluation of a steered directory, from the names of the suites to every file that is written."""

from collections.abc import Iterable, Sequence
from pathlib import Path

from pydantic import ValidationError

from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.common.disk_errors import require_writable
from mars_export.common.errors import ExportError
from mars_export.common.launch import is_first_process
from mars_export.common.missing import missing_directory
from mars_export.common.names import EVALUATION, REPORT_FILE
from mars_export.common.paths import exists, is_dir, named
from mars_export.common.progress import Tick
from mars_export.evaluation import evaluate as evaluation
from mars_export.evaluation.engines.base import Engine
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.overlap import find_prompts
from mars_export.evaluation.report import Report
from mars_export.evaluation.reports import folder_for, folder_of, lead_with, leading
from mars_export.evaluation.suite import SUITE_NAME, Suite
from mars_export.evaluation.suites.catalog import DEFAULT, open_suites
from mars_export.inputs.prompts import PromptSets
from mars_export.integrations.every_eval_ever import write_every_eval_ever
from mars_export.pipeline.kept import calibrated_on, find_sets, kept_suites
from mars_export.pipeline.organisms import ORGANISM, resolve_model
from mars_export.pipeline.questions import check_suite

__all__ = ["evaluate", "prompts_at_hand", "sets_at_hand", "suites_at_hand"]


def evaluate(
    directory: Path,
    suite: Suite | Sequence[str] = (),
    options: EvaluationOptions | None = None,
    *,
    judge: Judge | None = None,
    calibration_prompts: Sequence[str] | None = None,
    progress: Tick | None = None,
    folder: Path | None = None,
    lead: bool = False,
    checked: bool = False,
    engine: Engine | None = None,
) -> Report:
    """Measure a steered directory, write `evaluation/` and seal it, as `mars-export evaluate` does.

    The first report is `evaluation/report.json`. One of another suite, judge or setting goes into a
    folder of its own below `evaluation/`, and replaces none.

    A killed run continues where it stopped. If the self-check finds that steering is not active,
    the report holds no number of a steered arm; the caller decides what to make of it.

    Args:
        directory: Steered checkpoint.
        suite: What to run: a suite, or names and files as for `open_suites`; none for what the
            directory was made with.
        options: How to run it; the defaults if None.
        judge: Of the answers; None for the rules.
        calibration_prompts: What the calibration was made from, to be compared with the requests;
            None to look for them in the package and in the files of `suite`.
        progress: Called with (answers done, answers in all).
        folder: Where the report goes instead, in the directory or not.
        lead: Whether it becomes the report that the card leads with; the present one is kept.
        checked: Whether it is known that the model can be asked these requests, and what `folder`
            holds may be replaced; else that is looked at first.
        engine: What answers; None for Transformers in this process.

    Raises:
        ExportError: for everything that the user can fix; see `evaluation.evaluate`.
    """
    names: Sequence[str] = () if isinstance(suite, Suite) else suite
    if not isinstance(suite, Suite):
        names = names or suites_at_hand(directory)
        suite = open_suites(names)
    name = suite.name
    _require_untuned(directory, suite)

    def place(run: str) -> Path:
        target = folder or folder_for(directory, name, run)
        if folder and not checked:
            _require_free(folder, run)
        if is_first_process():
            require_writable(target)
        return target

    if not checked:
        check_suite(directory, suite, Manifest.read(directory).calibration.source)
    if calibration_prompts is None:
        calibration_prompts = prompts_at_hand(directory, names)
    report = evaluation.evaluate(
        directory,
        suite,
        options,
        judge=judge,
        calibration_prompts=calibration_prompts,
        prompts=sets_at_hand(directory),
        progress=progress,
        place=place,
        engine=engine,
    )
    if is_first_process():
        if report.self_check.active:
            write_every_eval_ever(directory, report, folder or folder_of(directory, report))
        if lead and folder is None:
            lead_with(directory, report)
        if folder is None or folder.resolve().is_relative_to(directory.resolve()):
            write_seal(directory, f"{EVALUATION}/")
    return report


def _require_untuned(directory: Path, suite: Suite) -> None:
    """Refuse to evaluate a directory on what it was tuned on."""
    tuning = Manifest.read(directory).calibration.source.tuning
    if tuning and tuning.sha256 in {part.sha256 for part in (suite, *suite.parts)}:
        raise ExportError(
            f"{directory} was tuned on {tuning.name}, so that its numbers there say nothing; give "
            "another --suite"
        )


def _require_free(folder: Path, run: str) -> None:
    """Refuse a folder for a report that holds another one, or that is none."""
    if exists(folder) and not is_dir(folder):
        raise ExportError(f"{missing_directory(folder)}; choose another --output")
    path = folder / REPORT_FILE
    if not path.exists():
        return
    try:
        report = Report.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        what = "something else"
    else:
        if report.run == run:
            return
        what = f"an evaluation on {report.suite.name}, or in another way"
    raise ExportError(f"{path} holds {what}; choose another --output, or delete it")


def suites_at_hand(directory: Path) -> tuple[str, ...]:
    """What a steered directory is evaluated on if nobody says: what it was made with.

    Raises:
        ExportError: if that was a file which is not at hand.
    """
    if kept := kept_suites(directory):
        return kept
    base, report = Manifest.read(directory).base, leading(directory)
    if base.bundled:
        own = Path(resolve_model(ORGANISM + base.name)) / SUITE_NAME
        return (str(own),) if own.is_file() else ()
    sources = [suite.source for suite in report.suites] or [report.suite] if report else []
    files = [source.name for source in sources if source.origin == "file"]
    if files:
        raise ExportError(
            f"{directory} was evaluated on {', '.join(files)}, whose file is not at hand: give "
            f"--suite FILE, or another suite, as --suite {DEFAULT}"
        )
    known = (source.origin.partition(":") for source in sources)
    return tuple(name for kind, _, name in known if kind == "known" and "=" not in name)


def sets_at_hand(directory: Path) -> PromptSets | None:
    """What a directory was calibrated on, with labels and parts; None if it is not at hand."""
    known = calibrated_on(directory)
    return find_sets(known, [directory], known.seed) if known else None


def prompts_at_hand(directory: Path, names: Sequence[str]) -> Sequence[str]:
    """What a directory was calibrated on, as far as the package or the files of suites hold it.

    Args:
        directory: Steered checkpoint.
        names: Suites, as for `open_suites`.
    """
    record = Manifest.read(directory).calibration
    if (sets := sets_at_hand(directory)) is not None:
        return sets.prompts
    files = (named(name.rpartition("=")[2]) for name in names)
    places: Iterable[Path | None] = (*filter(Path.is_file, files), None)
    candidates = (find_prompts(record, place) for place in places)
    return next(filter(None, candidates), ())
