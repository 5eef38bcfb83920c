"""`mars-export compare --model X`: methods and baselines side by side on one model."""

import shlex
from typing import Any

import click

from mars_export.cli.options import (
    GroupedHelp,
    as_json,
    print_json,
    read_settings,
    settings_options,
)
from mars_export.common.names import CARD_NAME
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.comparison_settings import ComparisonSettings

__all__ = ["compare"]


@click.command(cls=GroupedHelp)
@as_json
@settings_options(ComparisonSettings, without=("arm", "tensor_parallel"))
@click.pass_context
def compare(ctx: click.Context, /, as_json: bool, **values: Any) -> None:
    """Compare methods and baselines on one model, with one card.

    Each method makes a checkpoint, in DIR/methods; then all of them and the baselines answer the
    same requests, judged alike. DIR/README.md says what each refuses, what that costs harmless
    requests, and how it differs from MARS. A stopped comparison goes on when it is repeated.
    """
    settings = read_settings(ComparisonSettings, ctx, values)
    quiet_libraries()
    from mars_export.comparison.record import COMPARISON_NAME, Comparison
    from mars_export.comparison.terminal import lines
    from mars_export.pipeline.comparison import compare

    output = compare(settings)
    record = Comparison.model_validate_json((output / COMPARISON_NAME).read_bytes())
    if as_json:
        print_json(record)
        return
    for line in lines(record):
        click.echo(line)
    click.echo(f"card: {shlex.quote(str(output / CARD_NAME))}", err=True)
