"""`mars-export card DIR`: render the model card again."""

from pathlib import Path

import click

from mars_export.cli.options import DIRECTORY, as_json, print_json

__all__ = ["card"]


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--repo",
    metavar="REPO",
    help="Hub repository that the loading snippet names; kept for later cards.",
)
@click.option(
    "--contact",
    metavar="TEXT",
    help="Where to report failures, such as an address; kept for later cards. Without it, the "
    "discussions of the repository.",
)
@as_json
def card(directory: Path, repo: str | None, contact: str | None, as_json: bool) -> None:
    """Write README.md and its plots from the manifest and the report in DIRECTORY."""
    from mars_export.card.render import write_card
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.hub import require_name

    if repo is not None:
        require_name(repo)
    with clear_disk_errors(directory):
        write_card(directory, repo, contact)
    if as_json:
        print_json({"card": directory / "README.md"})
    else:
        click.echo(directory / "README.md")
