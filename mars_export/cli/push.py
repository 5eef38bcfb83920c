"""`mars-export push DIR [REPO]`: publish a steered directory."""

from pathlib import Path
from typing import Any

import click

from mars_export.cli.options import GroupedHelp, read_settings, settings_options
from mars_export.pipeline.settings import PushSettings

__all__ = ["push"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=click.Path(path_type=Path))
@click.argument("repo", required=False)
@settings_options(PushSettings)
@click.pass_context
def push(ctx: click.Context, /, directory: Path, repo: str | None, **values: Any) -> None:
    """Publish the steered directory DIRECTORY to the Hub in one commit.

    REPO is ORG/NAME or NAME; without it, the base's name and the method's. The token is the one of
    `hf auth login` or HF_TOKEN.
    """
    settings = read_settings(PushSettings, ctx, values)
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.progress import progress_for
    from mars_export.pipeline.stages import publish

    with clear_disk_errors(directory):
        progress = progress_for(settings.display)
        click.echo(publish(directory, repo, progress, private=settings.private))
