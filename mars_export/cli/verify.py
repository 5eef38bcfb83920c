"""`mars-export verify DIR_OR_REPO`: is it what mars-export wrote?"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from mars_export.cli.options import (
    GroupedHelp,
    as_json,
    print_json,
    read_settings,
    settings_options,
)
from mars_export.cli.printable import printable
from mars_export.common.quiet import quiet_libraries
from mars_export.pipeline.run_settings import RunSettings

if TYPE_CHECKING:
    from mars_export.verification import Verification

__all__ = ["verify"]

_MARKS: Final = {
    "passed": ("✓", "green"),
    "failed": ("✗", "bold red"),
    "skipped": ("-", "yellow"),
}


@click.command(cls=GroupedHelp)
@click.argument("target", metavar="DIR_OR_REPO")
@click.option("--revision", metavar="REV", help="Branch, tag or commit of a repository.")
@click.option("--offline", is_flag=True, help="Leave out the comparison with the base on the Hub.")
@click.option(
    "--run", is_flag=True, help="Afterwards load the directory and repeat its calibration's probes."
)
@click.option(
    "--public-key",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Whose signature the seal must have (PEM).",
)
@as_json
@settings_options(RunSettings, without=("batch_size", "display"))
@click.pass_context
def verify(
    ctx: click.Context,
    /,
    target: str,
    revision: str | None,
    offline: bool,
    run: bool,
    public_key: Path | None,
    as_json: bool,
    **values: Any,
) -> int:
    """Check a steered directory or repository without running its code.

    Exits with 0 if it is what mars-export wrote, 1 if a check failed, 2 for bad input.
    """
    settings = read_settings(RunSettings, ctx, values)
    from mars_export.common.progress import progress_for
    from mars_export.verification import verify as check

    quiet_libraries()
    progress = progress_for("auto" if sys.stderr.isatty() and not as_json else "none")
    with progress.stage("verify") as tick:
        found = check(
            target,
            revision=revision,
            offline=offline,
            run=run,
            device=settings.device,
            public_key=public_key,
            progress=tick,
        )
    if as_json:
        print_json(found, passed=found.passed)
    else:
        _print(found)
    return 0 if found.passed else 1


def _print(found: "Verification") -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from mars_export.verification.checks import SEALED

    table = Table.grid(padding=(0, 1))
    for overflow in ("ignore", "ignore", "fold"):
        table.add_column(overflow=overflow)
    for check in found.checks:
        mark, style = _MARKS[check.status]
        detail = "\n".join(check.problems) or check.detail
        table.add_row(Text(mark, style), Text(check.name, style), Text(printable(detail)))
    console = Console(highlight=False, soft_wrap=False)
    console.print(table)
    for note in found.notes:
        console.print(Text(printable(f"note: {note}")), soft_wrap=True)
    commit = f" at commit {found.commit}" if found.commit else ""
    verdict = f"{found.target}{commit}: "
    failed = [check.name for check in found.checks if check.status == "failed"]
    skipped = [check.name for check in found.checks if check.status == "skipped"]
    if failed == [SEALED]:
        verdict += "NOT verified: what is loaded is what was exported, but not what lies beside it"
    elif failed:
        count = f"{len(failed)} of {len(found.checks)}"
        verdict += f"NOT verified, {count} checks failed; do not load it"
    else:
        verdict += "verified" + (f"; not checked: {', '.join(skipped)}" if skipped else "")
    console.print(Text(printable(verdict)), soft_wrap=True)
