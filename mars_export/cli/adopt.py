"""`mars-export adopt DIR`: what was saved after training, as a steered directory."""

from pathlib import Path
from typing import Any, Final

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
from mars_export.pipeline.settings import EvaluationSettings, PushSettings, Settings

__all__ = ["adopt"]

_FIELDS: Final = {
    *EvaluationSettings.model_fields,
    *PushSettings.model_fields,
    *("output", "overwrite", "push", "license"),
}


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--base",
    type=DIRECTORY,
    metavar="DIR",
    required=True,
    help="The steered directory that the training began with.",
)
@as_json
@settings_options(Settings, only=_FIELDS)
@click.pass_context
def adopt(ctx: click.Context, /, directory: Path, base: Path, as_json: bool, **values: Any) -> None:
    """Make a steered directory of DIRECTORY, saved after training, that keeps its calibration.

    Use it where `mars-export drift` says that the calibration holds. Calibration, prompts, suites
    and license are those of --base; the trained weights are evaluated and documented, and can then
    be verified and published. DIRECTORY stays as it is.
    """
    values["model"] = str(directory)
    settings = read_settings(Settings, ctx, values)
    from mars_export.cli.summary import print_summary
    from mars_export.pipeline.stages import adopt as run

    quiet_libraries()
    output = run(settings, base)
    if is_first_process():
        print_summary(output, as_json=as_json, quiet=settings.display == "none")
