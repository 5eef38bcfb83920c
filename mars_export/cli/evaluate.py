"""`mars-export evaluate DIR`: measure a steered directory again."""

import os
from pathlib import Path
from typing import Any

import click

from mars_export.cli.options import GroupedHelp, read_settings, settings_options
from mars_export.common.errors import ExportError
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.settings import EvaluationSettings

__all__ = ["evaluate"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=click.Path(path_type=Path))
@settings_options(EvaluationSettings)
@click.pass_context
def evaluate(ctx: click.Context, /, directory: Path, **values: Any) -> None:
    """Evaluate the steered directory DIRECTORY, steering off and on, and further arms.

    Writes evaluation/report.json and evaluation/samples.jsonl there; `mars-export card` then
    brings the model card up to date.
    """
    settings = read_settings(EvaluationSettings, ctx, values)
    from mars_export.checkpoint.manifest import Manifest
    from mars_export.cli.summary import print_results
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.progress import progress_for
    from mars_export.evaluation.evaluate import evaluate as run
    from mars_export.evaluation.judges.choice import judge_named
    from mars_export.evaluation.leakage import find_prompts
    from mars_export.evaluation.suites.catalog import open_suites
    from mars_export.integrations.every_eval_ever import write_every_eval_ever

    suite = open_suites(settings.suite)
    first = os.environ.get("RANK", "0") == "0"  # of the processes that a launcher started
    display = settings.display if first else "none"
    judge = judge_named(settings.judge, settings.device)
    files = [Path(asked.rpartition("=")[2]).expanduser() for asked in settings.suite]
    record = Manifest.read(directory).calibration
    own = (find_prompts(record, file) for file in (*filter(Path.is_file, files), None))
    prompts = next(filter(None, own), ())
    quiet_libraries()
    with clear_disk_errors(directory), progress_for(display).stage("evaluate") as tick:
        report = run(
            directory,
            suite,
            settings.options,
            judge=judge,
            calibration_prompts=prompts,
            progress=tick,
        )
    if not report.self_check.active:
        raise ExportError(f"{directory} does not steer as calibrated: {report.self_check.detail}")
    if first:
        write_every_eval_ever(directory, report)
        print_results(report)
