"""Writes the generated parts of `docs/`.

    python -m tools.pages

after a change of the command line, and after tests of families or of uses

    MARS_RESULTS=results.json python -m pytest -m "behavior or mode or use"
    python -m tools.pages results.json

which first brings the records `mars_export/families/tested.jsonl` and
`examples/compatibility.jsonl` up to date. Several result files may be given, and tests of some
families alone, as of a new one (`-k`). Nothing is written if a test of them failed.
"""

import sys
from pathlib import Path
from typing import Any, Final

import click

from mars_export.cli.main import cli
from mars_export.families import tested
from tools.records import ROOT, USED, write_records
from tools.tables import family_table, mode_table, replace_between, use_table

DOCS: Final = ROOT / "docs"
_WIDTH: Final = 96


def pages() -> dict[Path, str]:
    """Every page with generated parts, as it should be now."""
    parts = {
        DOCS / "compatibility.md": {
            "families": family_table(tested()),
            "modes": mode_table(tested()),
            "uses": use_table(USED.read_text("utf-8")),
        },
        DOCS / "cli.md": {"help": help_texts()},
    }
    made = {}
    for path, tables in parts.items():
        text = path.read_text("utf-8")
        for mark, table in tables.items():
            text = replace_between(text, mark, table)
        made[path] = text
    return made


def help_texts() -> str:
    """The help of the main command and of each subcommand, as sections of Markdown."""
    wide: dict[str, Any] = {"terminal_width": _WIDTH, "max_content_width": _WIDTH}
    main = cli.make_context("mars-export", [], resilient_parsing=True, **wide)
    sections = [_section("mars-export", cli.get_help(main))]
    for name in cli.list_commands(main):
        command = cli.get_command(main, name)
        if command is None or command.hidden:
            continue
        context = click.Context(command, parent=main, info_name=name)
        sections.append(_section(f"mars-export {name}", command.get_help(context)))
    return "\n\n".join(sections)


def _section(title: str, text: str) -> str:
    return f"## {title}\n\n```text\n{text}\n```"


def main(*results: Path) -> None:
    """Bring the records up to date, then write every page."""
    if results:
        write_records(results)
    tested.cache_clear()
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"pages: {error}")
