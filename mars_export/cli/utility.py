"""`mars-export utility DIR`: what steering costs on utility benchmarks."""

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
from mars_export.evaluation.utility import MARGIN
from mars_export.pipeline.run_settings import RunSettings

__all__ = ["utility"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--task",
    "tasks",
    multiple=True,
    required=True,
    metavar="TASK",
    help="Task of lmms-eval, for example mmstar; may be given several times.",
)
@click.option("--limit", type=click.IntRange(1), metavar="N", help="First N samples of each task.")
@click.option(
    "--margin",
    type=click.FloatRange(0, 1, min_open=True),
    default=MARGIN,
    show_default=True,
    metavar="X",
    help="Loss that is acceptable, as a share of 1.",
)
@click.option(
    "--off",
    type=DIRECTORY,
    metavar="DIR",
    help="Do not run: compare the logs of lmms-eval in this folder, steering off ...",
)
@click.option(
    "--on", type=DIRECTORY, metavar="DIR", help="... with those in this one, steering on."
)
@click.option(
    "--include", type=DIRECTORY, metavar="DIR", help="Folder with task files of your own."
)
@as_json
@settings_options(RunSettings, without=("display",))
@click.pass_context
def utility(
    ctx: click.Context,
    /,
    directory: Path,
    tasks: tuple[str, ...],
    limit: int | None,
    margin: float,
    off: Path | None,
    on: Path | None,
    include: Path | None,
    as_json: bool,
    **values: Any,
) -> None:
    """Compare utility with steering off and on, through lmms-eval.

    Runs each task twice on the same weights and writes evaluation/utility.json: paired difference
    with its interval, whether the loss stays within the margin, and how often the model refuses.
    """
    settings = read_settings(RunSettings, ctx, values)
    from mars_export.cli.summary import print_utility
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.errors import ExportError
    from mars_export.integrations.lmms_eval.comparison import from_logs

    if (off is None) != (on is None):
        raise ExportError("--off and --on go together; give both or neither")
    with clear_disk_errors(directory):
        if off is not None and on is not None:
            result = from_logs(directory, tasks, off, on, margin)
        else:
            from mars_export.integrations.lmms_eval.engine import measure

            result = measure(
                directory,
                tasks,
                margin=margin,
                limit=limit,
                batch_size=settings.batch_size,
                device=settings.device,
                include=include,
            )
    if as_json:
        print_json(result)
    else:
        print_utility(directory, result)
