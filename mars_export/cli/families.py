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
    types = max(len(family.model_type) for family in known().values())
    names = max(len(family.name) for family in known().values())
    for family in known().values():
        extra = f"  ({install_extra(family.extras)})" if family.extras else ""
        modalities = ", ".join(family.modalities)
        lacking = f"  ({family.lacking})" if family.lacking else ""
        columns = f"{family.model_type:{types}} {family.name:{names}}"
        click.echo(f"{columns} {modalities}{extra}{lacking}")
