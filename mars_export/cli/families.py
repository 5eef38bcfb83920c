"""`mars-export families`: what can be steered."""

import click

from mars_export.cli.options import as_json, print_json
from mars_export.common.installation import install_extra

__all__ = ["families"]


@click.command()
@as_json
def families(as_json: bool) -> None:
    """List the supported model families."""
    from mars_export.families import families as known

    if as_json:
        print_json([family.model_dump(mode="json") for family in known().values()])
        return
    for family in known().values():
        extra = f"  ({install_extra(family.extras)})" if family.extras else ""
        modalities = ", ".join(family.modalities)
        lacking = f"  ({family.lacking})" if family.lacking else ""
        click.echo(f"{family.model_type:16} {family.name:16} {modalities}{extra}{lacking}")
