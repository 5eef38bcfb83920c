"""`mars-export seal DIR`: the digests of what was changed by hand."""

from pathlib import Path

import click

__all__ = ["seal"]


@click.command()
@click.argument("directory", type=click.Path(path_type=Path))
def seal(directory: Path) -> None:
    """Seal DIRECTORY as it is, after you edited its card or added files.

    Writes steering_seal.json, which holds the digests of everything beside the export, so that
    `mars-export verify` passes again. Sign it again if you sign.
    """
    from mars_export.checkpoint.seal import write_seal
    from mars_export.common.disk_errors import clear_disk_errors

    with clear_disk_errors(directory):
        click.echo(write_seal(directory))
