"""`mars-export demo DIR`: a page on this machine that asks with steering off and on."""

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
from mars_export.cli.printable import printable
from mars_export.common.errors import ExportError
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.demo_settings import DemoSettings

__all__ = ["demo"]


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--space",
    metavar="ORG/NAME",
    help="Write the folder of a Space of the Hub instead, which shows the published checkpoint.",
)
@click.option(
    "--checkpoint",
    metavar="ORG/NAME",
    help="Repository of the checkpoint, for --space.  [default: of the same owner, named as push "
    "names it]",
)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Folder to write, for --space.  [default: NAME]",
)
@click.option("--push", is_flag=True, help="Publish the Space too.")
@click.option("--private", is_flag=True, help="Make a new Space private.")
@as_json
@settings_options(DemoSettings, without=("batch_size",))
@click.pass_context
def demo(
    ctx: click.Context,
    /,
    directory: Path,
    space: str | None,
    checkpoint: str | None,
    output: Path | None,
    push: bool,
    private: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Open a page that asks the steered DIRECTORY with steering off and on, side by side.

    The page is for this machine alone; Ctrl-C ends it. Files that are added to a question are not
    kept. Needs the extra `demo`.
    """
    settings = read_settings(DemoSettings, ctx, values)
    if space is None:
        given = {"--checkpoint": checkpoint, "--output": output, "--push": push}
        if lone := [name for name, value in {**given, "--private": private}.items() if value]:
            raise ExportError(f"{lone[0]} goes with --space ORG/NAME; leave it out")
        _serve(directory, settings, as_json)
        return
    from mars_export.checkpoint.manifest import Manifest
    from mars_export.demo.publishing import make_space
    from mars_export.demo.space import checkpoint_of

    folder, url = make_space(
        directory, space, checkpoint, output, publish=push, private=private or None
    )
    if as_json:
        print_json({"folder": str(folder), "url": url})
    else:
        loaded = checkpoint or checkpoint_of(Manifest.read(directory), space)
        click.echo(f"the Space loads {loaded}", err=True)
        click.echo(printable(url or str(folder)))


def _serve(directory: Path, settings: DemoSettings, as_json: bool) -> None:
    from mars_export.checkpoint.derived import read_steering
    from mars_export.common.progress import progress_for
    from mars_export.demo import require_extra

    read_steering(directory)  # a directory that is not steered is told first
    require_extra()
    quiet_libraries()
    from mars_export.demo.asking import open_subject
    from mars_export.demo.examples import examples_of
    from mars_export.demo.server import served, wait

    with progress_for(settings.display).stage("load"):
        subject = open_subject(
            directory,
            device=settings.device,
            dtype=settings.dtype,
            max_new_tokens=settings.max_new_tokens,
        )
    shown = examples_of(directory, subject.modalities)
    with served(subject, port=settings.port, browser=settings.browser, examples=shown) as url:
        if as_json:
            print_json({"url": url})
        else:
            click.echo(f"{url} (Ctrl-C ends it)")
        wait()
