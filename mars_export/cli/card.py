"""`mars-export card DIR`: render the model card again."""

from pathlib import Path

import click

__all__ = ["card"]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
@click.option("--repo", metavar="REPO", help="Hub repository that the loading snippet names.")
def card(directory: Path, repo: str | None) -> None:
    """Write README.md and its plots from the manifest and the report in DIRECTORY."""
    from mars_export.card.render import write_card
    from mars_export.common.disk_errors import clear_disk_errors

    with clear_disk_errors(directory):
        write_card(directory, repo)
    click.echo(directory / "README.md")
