"""The main command: `mars-export --model X`."""

from typing import Any

import click

from mars_export.cli.options import read_settings
from mars_export.common.launch import is_first_process
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.settings import Settings

__all__ = ["export"]


def export(ctx: click.Context, values: dict[str, Any], as_json: bool = False) -> None:
    """Run the whole pipeline and print what came out."""
    settings = read_settings(Settings, ctx, values)
    from mars_export.cli.summary import print_summary
    from mars_export.pipeline.stages import export as run

    quiet_libraries()
    output = run(settings)
    if is_first_process() and not settings.dry_run:
        print_summary(output, as_json=as_json, quiet=settings.display == "none")
