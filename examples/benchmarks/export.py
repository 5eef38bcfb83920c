"""How fast a sharded model is exported, beside copying and hashing the same files."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from speed.job import parser, run
from speed.shapes import SHAPES, make_base, make_steered
from speed.shards import fill, forget

EXAMPLES = """examples:
  python export.py --shape tiny --gigabytes 0.1
  python export.py --gigabytes 16 --work /scratch --json results/export-cpu.json --readme"""
_CHUNK = 1 << 22


def main(arguments: list[str] | None = None) -> None:
    """Measure, or print the table of a run that was measured before."""
    made = parser(__doc__, EXAMPLES)
    add = made.add_argument
    add("--shape", choices=SHAPES, default="2b-slice", help="of the model among the shards")
    add("--gigabytes", type=float, default=16, help="of random weights in all")
    add("--shard-gigabytes", type=float, default=4, help="of one file")
    add("--no-copy", action="store_true", help="leave out copying, which needs the room twice")
    run(made.parse_args(arguments), measure, table)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Each step with the files out of the cache first, as far as the system allows."""
    shape = SHAPES[given.shape]
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        base = Path(folder) / "base"
        make_base(shape, base, torch.device("cpu"))
        fill(base, int(given.gigabytes * 1e9), int(given.shard_gigabytes * 1e9))
        shards = sorted(base.glob("*.safetensors"))
        rows: dict[str, dict[str, float]] = {}
        rows["read"] = _timed(shards, lambda: _each(shards, lambda _piece: None))
        rows["hash"] = _timed(shards, lambda: _each(shards, hashlib.sha256().update))
        rows["sha256sum"] = _timed(
            shards, lambda: subprocess.run(["sha256sum", *shards], check=True, capture_output=True)
        )
        rows["export"] = _timed(shards, lambda: make_steered(shape, base, Path(folder)))
        steered = next(Path(folder).glob("steered_*"))
        known = {path.stat().st_ino for path in steered.rglob("*")}
        linked = known >= {path.stat().st_ino for path in shards}
        if not given.no_copy:
            target = Path(folder) / "copy"
            target.mkdir()
            rows["copy"] = _timed(shards, lambda: _copy(shards, target))
        size = sum(path.stat().st_size for path in shards)
    return {
        "kind": "export", "shape": shape.name, "bytes": size, "shards": len(shards),
        "linked": linked, "rows": rows,
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The Markdown of one run."""
    how = "hard links: no byte of them is written" if results["linked"] else "copies"
    lines = [
        f"{results['bytes'] / 1e9:.1f} GB of random weights in {results['shards']} files, on "
        f"{results['machine']['cpu']}. In the export the base's files are {how}.", "",
        "| step | seconds | of them processor | GB/s | of reading |", "|" + " --- |" * 5,
    ]  # fmt: skip
    read = results["rows"]["read"]["seconds"]
    for name, row in results["rows"].items():
        speed = results["bytes"] / row["seconds"] / 1e9
        lines.append(
            f"| {_STEPS[name]} | {row['seconds']:.1f} | {row['processor']:.1f} | {speed:.2f} "
            f"| {row['seconds'] / read:.2f} |"
        )
    return "\n".join(lines)


_STEPS = {
    "read": "read the shards, in pieces of 4 MiB",
    "hash": "read and hash them (SHA-256, hashlib)",
    "sha256sum": "`sha256sum`",
    "export": "**export**: link, hash, write what is new, seal",
    "copy": "`cp` with `fsync`",
}


def _timed(shards: list[Path], step: Callable[[], object]) -> dict[str, float]:
    forget(shards)
    start, busy = time.perf_counter(), _busy()
    step()
    return {"seconds": time.perf_counter() - start, "processor": _busy() - busy}


def _busy() -> float:
    """Processor seconds of this process and of those that it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _each(paths: list[Path], take: Callable[[bytes], object]) -> None:
    for path in paths:
        with path.open("rb") as stream:
            while piece := stream.read(_CHUNK):
                take(piece)


def _copy(paths: list[Path], target: Path) -> None:
    for path in paths:
        shutil.copyfile(path, target / path.name)
        with (target / path.name).open("rb") as stream:
            os.fsync(stream.fileno())


if __name__ == "__main__":
    main()
