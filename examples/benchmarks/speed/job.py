"""A benchmark of one table: its options, its file of results and its place in the README."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from speed.clock import one_thread
from speed.report import into_readme, machine, versions

__all__ = ["about", "parser", "publish", "ratio", "run"]

README = Path(__file__).parents[1] / "README.md"
Json = dict[str, Any]
Table = Callable[[Json], str]


def parser(description: str | None, epilog: str) -> argparse.ArgumentParser:
    """The options that every benchmark has."""
    made = argparse.ArgumentParser(
        description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = made.add_argument
    add("--work", type=Path, help="directory with room for what is made; it is removed")
    add("--json", type=Path, help="write the results here")
    add("--table", type=Path, help="measure nothing, print the table of this JSON file")
    add("--readme", action="store_true", help="put the table into README.md, by the JSON's name")
    return made


def run(
    given: argparse.Namespace, measure: Callable[[argparse.Namespace], Json], table: Table
) -> None:
    """Measure on one thread and publish, or print the table of a run that was measured before."""
    if given.table:
        publish(json.loads(given.table.read_text(encoding="utf-8")), given.table, given, table)
        return
    with one_thread("cpu"):
        results = {**about(), **measure(given)}
    if given.json:
        given.json.parent.mkdir(parents=True, exist_ok=True)
        given.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    publish(results, given.json, given, table)


def publish(results: Json, path: Path | None, given: argparse.Namespace, table: Table) -> None:
    """Print a table, and put it into the README if that is asked for."""
    print(table(results))
    if given.readme:
        into_readme(README, path.stem if path else "", table(results))


def about() -> Json:
    """Where and with what numbers were taken."""
    return {"machine": machine(torch.device("cpu")), "versions": versions()}


def ratio(one: Sequence[float], other: Sequence[float]) -> Json:
    """Median of one over the other, round by round, with the rounds' range."""
    ratios = sorted(a / b for a, b in zip(one, other, strict=True))
    return {
        "ratio": float(torch.tensor(ratios, dtype=torch.float64).quantile(0.5)),
        "least": ratios[0], "most": ratios[-1], "rounds": len(ratios),
    }  # fmt: skip
