"""`mars-export recalibrate DIR`: steer a checkpoint anew after training."""

from pathlib import Path
from typing import Any

import click

from mars_export.cli.options import (
    DIRECTORY,
    GroupedHelp,
    as_json,
    read_settings,
    settings_options,
)
from mars_export.common.launch import is_first_process
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.settings import Settings

__all__ = ["recalibrate"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--base",
    type=DIRECTORY,
    metavar="DIR",
    help="The steered directory before training, which keeps prompts, suites and license.",
)
@as_json
@settings_options(Settings, without=("model", "revision", "dry_run"))
@click.pass_context
def recalibrate(
    ctx: click.Context, /, directory: Path, base: Path | None, as_json: bool, **values: Any
) -> None:
    """Calibrate the trained weights of the steered DIRECTORY anew.

    Direction, shifts and gate are measured with the old steering left out, and a new steered
    checkpoint is written, evaluated and documented, as the main command does. The method and its
    options are those of DIRECTORY unless you name others; the layer is chosen anew. So are prompts,
    suites and license, which --base keeps where DIRECTORY was saved after training. DIRECTORY stays
    as it is.
    """
    from mars_export.cli.summary import print_summary
    from mars_export.pipeline.stages import recalibrate as run
    from mars_export.pipeline.stages import values_like

    quiet_libraries()
    given = {name: value for name, value in values.items() if value not in (None, ())}
    values = values_like(directory, {**given, "model": str(directory)})
    settings = read_settings(Settings, ctx, values)
    output = run(settings, base=base)
    if is_first_process():
        print_summary(output, as_json=as_json, quiet=settings.display == "none")
