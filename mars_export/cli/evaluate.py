"""`mars-export evaluate DIR`: measure a steered directory again."""

import shlex
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from mars_export.cli.options import (
    DIRECTORY,
    GroupedHelp,
    as_json,
    print_json,
    read_settings,
    settings_options,
)
from mars_export.common.errors import ExportError
from mars_export.common.launch import is_first_process
from mars_export.common.names import REPORT_FILE
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.settings import ENGINES, EvaluationSettings

__all__ = ["evaluate"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="FOLDER",
    help="Where the report goes instead; the card reads none from outside of DIRECTORY.",
)
@click.option(
    "--lead",
    is_flag=True,
    help="Make it the report that the card leads with; the present one stays beside it.",
)
@click.option(
    "--engine",
    type=click.Choice(ENGINES),
    default=ENGINES[0],
    show_default=True,
    help="What answers: Transformers here, two servers of OpenAI's API, or vLLM here.",
)
@click.option(
    "--endpoint",
    metavar="URL#MODEL",
    help="Server of the steered checkpoint, as http://localhost:8000/v1#steered.",
)
@click.option(
    "--base-endpoint",
    metavar="URL#MODEL",
    help="Server of its base model, which answers where steering is off.",
)
@as_json
@settings_options(EvaluationSettings)
@click.pass_context
def evaluate(
    ctx: click.Context,
    /,
    directory: Path,
    output: Path | None,
    lead: bool,
    engine: str,
    endpoint: str | None,
    base_endpoint: str | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Evaluate the steered directory DIRECTORY, steering off and on, and further arms.

    Without --suite, on what DIRECTORY was made with. The first report is evaluation/report.json;
    one of another suite, judge or setting goes into a folder of its own below evaluation/ and
    replaces none. `mars-export card` then brings the model card up to date, with all of them.
    """
    settings = read_settings(EvaluationSettings, ctx, values)
    from mars_export.checkpoint.manifest import Manifest
    from mars_export.cli.summary import print_results, print_warnings
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.progress import progress_for
    from mars_export.evaluation.judges.choice import judge_named
    from mars_export.evaluation.reports import folder_of
    from mars_export.evaluation.suite import HARMFUL_ONLY
    from mars_export.evaluation.suites.catalog import open_suites
    from mars_export.pipeline import evaluation
    from mars_export.pipeline.engines import engine_named
    from mars_export.pipeline.loaded import check_loaded
    from mars_export.pipeline.questions import harmful_only

    if lead and output:
        raise ExportError("--lead is for a report in DIRECTORY: leave out --output")
    if settings.placement and engine != ENGINES[0]:
        raise ExportError(
            f"--device-map and --tensor-parallel are for --engine {ENGINES[0]}: a server places "
            "its own model"
        )
    words = settings.suite or evaluation.suites_at_hand(directory)
    suite = open_suites(words)
    answering = engine_named(engine, directory, suite, endpoint, base_endpoint)
    first = is_first_process()
    judge = judge_named(settings.judge, settings.device)
    quiet_libraries()
    progress = progress_for(settings.display if first else "none")
    if not settings.suite:
        progress.note(f"suite {suite.name}, as {directory} was made with it")
    modalities = Manifest.read(directory).calibration.source.modalities
    cardless = output is None and harmful_only(suite, modalities)
    if cardless:
        progress.note(
            f"the suite {suite.name} {HARMFUL_ONLY}: no model card is written while its report "
            "lies in the directory"
        )
    if settings.placement:
        progress.note(check_loaded(directory, settings.options))
    begun = datetime.now(UTC).isoformat(timespec="seconds")
    with clear_disk_errors(output or directory), progress.stage("evaluate") as tick:
        report = evaluation.evaluate(
            directory,
            suite,
            settings.options,
            judge=judge,
            calibration_prompts=evaluation.prompts_at_hand(directory, words),
            progress=tick,
            folder=output,
            lead=lead,
            engine=answering,
        )
    if not report.self_check.active:
        raise ExportError(f"{directory} does not steer as calibrated: {report.self_check.detail}")
    if first and as_json:
        print_json(report)
    elif first:
        print_results(report)
        print_warnings(directory, report)
        folder = output or folder_of(directory, report)
        state = "there already" if report.created < begun else "report"
        click.echo(f"{state}: {folder / REPORT_FILE}", err=True)
        if output is None and not cardless:
            click.echo(f"next: mars-export card {shlex.quote(str(directory))}", err=True)
