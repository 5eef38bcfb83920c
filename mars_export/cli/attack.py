"""`mars-export attack DIR`: how far attackers come that adapt to a steered directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from mars_export.cli.options import (
    DIRECTORY,
    GroupedHelp,
    as_json,
    print_json,
    read_settings,
    settings_options,
)
from mars_export.common.quiet import quiet_libraries
from mars_export.evaluation.adaptive.record import Budget
from mars_export.pipeline.settings import AnswerSettings

__all__ = ["attack"]

_Command = TypeVar("_Command", bound=Callable[..., Any])


def _count(name: str, text: str) -> Callable[[_Command], _Command]:
    """An option for a number of the budget, with its default."""
    return click.option(
        f"--{name}",
        type=click.IntRange(1),
        default=getattr(Budget(), name),
        show_default=True,
        metavar="N",
        help=text,
    )


@click.command(cls=GroupedHelp)
@click.argument("directory", type=DIRECTORY)
@_count("requests", "Requests of each kind, each of a cluster of its own.")
@_count("steps", "Steps of gradient descent on pixels.")
@_count("draws", "Sampled answers to one request.")
@click.option(
    "--overwrite",
    is_flag=True,
    help="Replace a record of other requests, of another judge or of a larger budget.",
)
@as_json
@settings_options(AnswerSettings)
@click.pass_context
def attack(
    ctx: click.Context,
    /,
    directory: Path,
    requests: int,
    steps: int,
    draws: int,
    overwrite: bool,
    as_json: bool,
    **values: Any,
) -> None:
    """Attack the steered DIRECTORY with gradients and many tries, steering off and on.

    Writes evaluation/adaptive.json: success against the attacker's budget. Without --suite, the
    requests are those that DIRECTORY was made with. A record that is there is replaced by one of
    the same requests with as large a budget or a larger one.
    """
    settings = read_settings(AnswerSettings, ctx, values)
    from mars_export.cli.summary import print_attacks
    from mars_export.common.disk_errors import clear_disk_errors
    from mars_export.common.progress import progress_for
    from mars_export.evaluation.judges.choice import judge_named
    from mars_export.evaluation.options import EvaluationOptions
    from mars_export.pipeline.attacks import attack as run
    from mars_export.pipeline.loaded import check_loaded

    judge = judge_named(settings.judge, settings.device)
    budget = Budget(
        requests=requests, steps=steps, draws=draws, max_new_tokens=settings.max_new_tokens
    )
    quiet_libraries()
    progress = progress_for(settings.display)
    if settings.placement:
        asked = EvaluationOptions(
            batch_size=settings.batch_size,
            max_new_tokens=settings.max_new_tokens,
            device=settings.where,
        )
        progress.note(check_loaded(directory, asked, gradients=True))
    with clear_disk_errors(directory), progress.stage("attack") as tick:
        record = run(
            directory,
            settings.suite,
            budget,
            judge=judge,
            batch_size=settings.batch_size,
            device=settings.where,
            progress=tick,
            overwrite=overwrite,
        )
    if as_json:
        print_json(record)
    else:
        print_attacks(directory, record)
