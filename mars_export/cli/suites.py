"""`mars-export suites`: what can be evaluated on."""

import click

from mars_export.cli.options import as_json, print_json

__all__ = ["suites"]

_COLUMNS = ("name", "modality", "harmful", "n", "offline", "license", "source")


@click.command()
@as_json
def suites(as_json: bool) -> None:
    """List the known suites; --suite NAME runs one, --suite NAME=PATH your copy of it."""
    from mars_export.evaluation.suites.catalog import DEFAULT
    from mars_export.evaluation.suites.record import known_suites

    default = ("text, image, video", "both", "240", "yes", "Apache-2.0", "written for mars-export")
    rows = [_COLUMNS, (DEFAULT, *default)]
    for record in known_suites().values():
        offline = "yes" if record.offline else "no"
        label = "yes" if record.harmful else "no"
        about = (record.modality, label, str(record.samples), offline, record.license)
        rows.append((record.name, *about, record.source_name))
    if as_json:
        print_json([dict(zip(_COLUMNS, row, strict=True)) for row in rows[1:]])
        return
    widths = [max(len(row[i]) for row in rows) for i in range(len(_COLUMNS))]
    for row in rows:
        click.echo("  ".join(f"{v:{w}}" for v, w in zip(row, widths, strict=True)).rstrip())
