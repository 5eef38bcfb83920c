"""Attack the toy models with everything that is known of them, and show what it takes.

    python examples/attacks/attacks.py gemma3 qwen3_vl --work DIR   # steer, attack, write results
    python examples/attacks/attacks.py --table                      # README from earlier results

A stopped run goes on when it is repeated with the same DIR.
"""

import argparse
import re
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path
from typing import Final

from mars_export.card.adaptive import AdaptiveLine, adaptive_lines, figure
from mars_export.common.names import ADAPTIVE_NAME
from mars_export.common.plotting import png
from mars_export.evaluation.adaptive.record import Adaptive

HERE: Final = Path(__file__).parent
ORGANISMS: Final = HERE.parent / "organisms"
COLUMNS: Final = (
    "attack", "requests", "success", "steering on, by budget", "at most", "half fall at",
    "on topic",
)  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Attack the organisms that are named, or print the table of earlier results."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("organism", nargs="*", help="gemma3, qwen3_vl")
    parser.add_argument("--work", type=Path, help="where steered checkpoints are made and kept")
    parser.add_argument("--results", type=Path, default=HERE / "results")
    parser.add_argument("--table", action="store_true", help="write README.md from the results")
    given, options = parser.parse_known_args(arguments)
    work = given.work or Path(tempfile.mkdtemp())
    for name in given.organism:
        record = attacked(name, work, options)
        given.results.mkdir(exist_ok=True)
        path = given.results / f"{name}.json"
        path.write_text(record.model_dump_json(indent=1) + "\n", encoding="utf-8")
        path.with_suffix(".png").write_bytes(png(partial(figure, record.curves)))
        print(table(record))
    if given.table:
        readme = HERE / "README.md"
        text = readme.read_text("utf-8")
        for path in sorted(given.results.glob("*.json")):
            made = table(Adaptive.model_validate_json(path.read_bytes()))
            text = into(text, path.stem, made)
        readme.write_text(text, encoding="utf-8")


def attacked(name: str, work: Path, options: list[str]) -> Adaptive:
    """The record of one organism, which is steered first.

    Args:
        name: Its folder in `examples/organisms`.
        work: Where the steered checkpoint is, or is to be.
        options: More of them for `mars-export attack`.
    """
    base, steered = ORGANISMS / name, work / name
    if not (steered / "steering_manifest.json").exists():
        mars_export("--model", base, "--output", steered)
    mars_export("attack", steered, "--suite", base / "suite.jsonl", *options)
    return Adaptive.model_validate_json((steered / ADAPTIVE_NAME).read_bytes())


def mars_export(*words: str | Path) -> None:
    """Run the command line."""
    subprocess.run([sys.executable, "-m", "mars_export", *map(str, words)], check=True)


def table(record: Adaptive) -> str:
    """Every curve, as Markdown."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *map(_row, adaptive_lines(record))]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(line: AdaptiveLine) -> tuple[str, ...]:
    return (
        line.attack, line.shown, line.goal, line.curve, line.most, line.half, line.on_topic
    )  # fmt: skip


def into(text: str, name: str, made: str) -> str:
    """The README with a table between its marks."""
    pattern = re.compile(rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    return pattern.sub(lambda match: f"{match[1]}{made}\n{match[2]}", text)


if __name__ == "__main__":
    main()
