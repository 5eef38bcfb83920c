"""Peak memory of a steered checkpoint beside its base's, each in a process of its own."""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import torch
from speed.cases import STEERED
from speed.job import parser, run
from speed.peak import told
from speed.shapes import SHAPES, make_base, make_steered

EXAMPLES = """examples:
  python memory.py --shape tiny --tokens 64 --rounds 1
  python memory.py --shape 2b-slice --json results/memory-cpu.json --readme"""
GOAL = 1.01


def main(arguments: list[str] | None = None) -> None:
    """Measure, or print the table of a run that was measured before."""
    made = parser(__doc__, EXAMPLES)
    add = made.add_argument
    add("--shape", choices=SHAPES, default="tiny", help="sizes of the random model")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--tokens", type=int, nargs="+", default=[32, 8192], help="of a prompt")
    add("--rows", type=int, default=1, help="batch size")
    add("--rounds", type=int, default=3, help="processes of each kind")
    run(made.parse_args(arguments), measure, table)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Base and steered in turn."""
    shape, device = SHAPES[given.shape], torch.device(given.device)
    rows = []
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        make_base(shape, Path(folder) / "base", device)
        pair = make_steered(shape, Path(folder) / "base", Path(folder))
        for tokens in given.tokens:
            peaks: dict[str, list[int]] = {"base": [], STEERED: []}
            paths = {"base": pair.base, STEERED: pair.steered}
            for turn in range(given.rounds):
                for name in list(paths)[:: -1 if turn % 2 else 1]:
                    peaks[name].append(_peak(paths[name], tokens, given))
            rows.append({"tokens": tokens, "rows": given.rows, "bytes": peaks})
    return {"kind": "memory", "shape": shape.name, "device": given.device, "rows": rows}


def table(results: dict[str, Any]) -> str:
    """The Markdown of one run."""
    lines = [
        f"Shape {results['shape']}, bfloat16, on {results['machine']['cpu']}.", "",
        "| tokens | batch | base, MiB | steered, MiB | ratio | goal | processes |",
        "|" + " --- |" * 7,
    ]  # fmt: skip
    for row in results["rows"]:
        base, steered = (median(row["bytes"][name]) for name in ("base", STEERED))
        met = "met" if steered / base <= GOAL else "**missed**"
        lines.append(
            f"| {row['tokens']} | {row['rows']} | {base / 2**20:.1f} | {steered / 2**20:.1f} "
            f"| {steered / base:.4f} | <= {GOAL}: {met} | {len(row['bytes']['base'])} each |"
        )
    return "\n".join(lines)


def _peak(path: Path, tokens: int, given: argparse.Namespace) -> int:
    words = ["--shape", given.shape, "--device", given.device]
    words += ["--tokens", str(tokens), "--rows", str(given.rows)]
    return told("from speed.peak import main; main()", str(path), *words)["peak"]


if __name__ == "__main__":
    main()
