"""`mars-export push DIR [REPO]`: publish a steered directory."""

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
from mars_export.pipeline.settings import PushSettings

__all__ = ["push"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.argument("repo", required=False)
@as_json
@settings_options(PushSettings, without=("device", "batch_size"))
@click.pass_context
def push(
    ctx: click.Context, /, directory: Path, repo: str | None, as_json: bool, **values: Any
) -> None:
    """Publish the steered directory DIRECTORY to the Hub in one commit.

    REPO is ORG/NAME or NAME; without it, the base's name and the method's. The token is the one of
    `hf auth login` or HF_TOKEN.
    """
    settings = read_settings(PushSettings, ctx, values)
    from huggingface_hub.utils.tqdm import disable_progress_bars

    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.progress import progress_for
    from mars_export.pipeline.stages import publish

    if settings.display == "none":
        disable_progress_bars()
    with clear_disk_errors(directory):
        progress = progress_for(settings.display)
        url = publish(directory, repo, progress, private=settings.private, contact=settings.contact)
        if as_json:
            print_json({"url": url})
        else:
            click.echo(url)
