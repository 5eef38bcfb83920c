"""`mars-export evaluate DIR`: measure a steered directory again."""

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
    from mars_export.cli.summary import print_results
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.progress import progress_for
    from mars_export.evaluation.judges.choice import judge_named
    from mars_export.evaluation.suites.catalog import open_suites
    from mars_export.pipeline import evaluation

    suite = open_suites(settings.suite)
    first = evaluation.is_first_process()
    judge = judge_named(settings.judge, settings.device)
    quiet_libraries()
    progress = progress_for(settings.display if first else "none")
    with clear_disk_errors(directory), progress.stage("evaluate") as tick:
        report = evaluation.evaluate(
            directory,
            suite,
            settings.options,
            judge=judge,
            calibration_prompts=evaluation.prompts_at_hand(directory, settings.suite),
            progress=tick,
        )
    if not report.self_check.active:
        raise ExportError(f"{directory} does not steer as calibrated: {report.self_check.detail}")
    if first:
        print_results(report)
