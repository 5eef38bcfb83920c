"""`mars-export seal DIR`: the digests of what was changed by hand."""

from pathlib import Path

import click

from mars_export.cli.options import DIRECTORY, as_json, print_json

__all__ = ["seal"]


@click.command()
@click.argument("directory", type=DIRECTORY)
@as_json
def seal(directory: Path, as_json: bool) -> None:
    """Seal DIRECTORY as it is, after you edited its card or added files.

    Writes steering_seal.json, which holds the digests of everything beside the export, so that
    `mars-export verify` passes again. Sign it again if you sign.
    """
    from mars_export.checkpoint.seal import write_seal
    from mars_export.common.disk_errors import clear_disk_errors

    with clear_disk_errors(directory):
        path = write_seal(directory)
    if as_json:
        print_json({"seal": path})
    else:
        click.echo(path)
