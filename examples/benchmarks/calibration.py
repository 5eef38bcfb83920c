"""What a calibration takes beside bare forwards over the same prompts; on a wall clock."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from pathlib import Path
from statistics import median
from typing import Any

import torch
from speed.job import parser, ratio, run
from speed.peak import peak_bytes, told
from speed.subjects import Subject, add_options, subject
from speed.watch import Watch, repeat

from mars_export.calibration import activations
from mars_export.calibration.data import MeasurementOptions
from mars_export.families.loading import load_base
from mars_export.methods.calibrate import calibrate
from mars_export.pipeline.preflight import prepare
from mars_export.pipeline.settings import Settings

EXAMPLES = """examples:
  python calibration.py --per-label 32 --pairs 16 --rounds 1
  python calibration.py --widen 64 --json results/calibration-cpu.json --readme"""
GOALS = {"seconds": 1.1, "memory": 1.02}


def main(arguments: list[str] | None = None) -> None:
    """Measure, or print the table of a run that was measured before."""
    made = parser(__doc__, EXAMPLES)
    add_options(made)
    add = made.add_argument
    add("--pairs", type=int, default=64, help="requests of each modality and condition, at most")
    add("--batch-size", type=int, default=16)
    add("--rounds", type=int, default=3)
    add("--no-memory", action="store_true", help="leave out the processes that measure it")
    run(made.parse_args(arguments), measure, table)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Both in turn: the calibration, and the forwards of its batches with nothing around them."""
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        base = subject(given, Path(folder))
        model, processor = base.load()
        with Watch(model, activations, "collate") as watch:  # the first one warms up, too
            _calibrate(base, model, processor, given)
        calls = watch.calls
        seconds: dict[str, list[float]] = {"calibration": [], "bare": []}
        worked: dict[str, list[float]] = {name: [] for name in seconds}
        inside = []
        for turn in range(given.rounds):
            for name in list(seconds)[:: -1 if turn % 2 else 1]:
                with Watch(model, activations, "collate", keep=False) as timed:
                    start, before = time.perf_counter(), time.process_time()
                    if name == "bare":
                        repeat(model, calls)
                    else:
                        _calibrate(base, model, processor, given)
                    seconds[name].append(time.perf_counter() - start)
                    worked[name].append(time.process_time() - before)
                if name == "calibration":
                    inside.append({"forwards": timed.forwards, "inputs": timed.inputs})
        torch.save(calls, Path(folder) / "calls.pt")
        memory = {
            name: [_peak(name, Path(folder), given) for _ in range(given.rounds)]
            for name in ("bare", "calibration")
            if not given.no_memory
        }
    return {
        "kind": "calibration", "model": base.name, "seconds": seconds, "inside": inside,
        "memory": memory, "counts": watch.counts(), "batch_size": given.batch_size,
        "time": ratio(seconds["calibration"], seconds["bare"]),
        "processor": ratio(worked["calibration"], worked["bare"]),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The Markdown of one run."""
    found, counts = results["time"], results["counts"]
    whole = sum(results["seconds"]["calibration"]) / found["rounds"]
    alone = sum(results["seconds"]["bare"]) / found["rounds"]
    parts = {
        name: sum(part[name] for part in results["inside"]) / found["rounds"]
        for name in ("forwards", "inputs")
    }
    rest, work = whole - parts["forwards"], results["processor"]
    lines = [
        f"{results['model']}, batches of {results['batch_size']}, on "
        f"{results['machine']['cpu']}. {counts['rows']} requests in {counts['forwards']} forwards, "
        f"with {counts['distinct']} different texts; {counts['padding']:.0%} of the columns are "
        "padding.",
        "",
        "| calibration | measured | beside bare forwards | goal |", "|" + " --- |" * 4,
        f"| whole | {whole:.1f} s | {found['ratio']:.3f} [{found['least']:.3f}, "
        f"{found['most']:.3f}] | {_met(found['ratio'], GOALS['seconds'])} |",
        f"| of that: forwards | {parts['forwards']:.1f} s | {parts['forwards'] / alone:.3f} | |",
        f"| of that: all else, waiting for inputs included | {rest:.1f} s | {rest / alone:.3f} | |",
        "| meanwhile, in a thread: stimuli, template, tokens, pixels "
        f"| {parts['inputs']:.1f} s | {parts['inputs'] / alone:.3f} | |",
        f"| processor time of both threads | | {work['ratio']:.3f} [{work['least']:.3f}, "
        f"{work['most']:.3f}] | |",
    ]  # fmt: skip
    if results["memory"]:
        whole, alone = (median(results["memory"][name]) for name in ("calibration", "bare"))
        lines.append(
            f"| peak memory | {whole / 2**20:.0f} MiB | {whole / alone:.3f} "
            f"| {_met(whole / alone, GOALS['memory'])} |"
        )
    return "\n".join(lines)


def _met(value: float, goal: float) -> str:
    return f"<= {goal}: {'met' if value <= goal else '**missed**'}"


def _calibrate(base: Subject, model: Any, processor: Any, given: argparse.Namespace) -> None:
    measurement = MeasurementOptions(
        pairs=given.pairs, condition_requests=given.pairs, batch_size=given.batch_size
    )
    calibrate(
        model, processor, prompts=base.prompts, modalities=base.inputs.family.modalities,
        measurement=measurement,
    )  # fmt: skip


def _peak(what: str, folder: Path, given: argparse.Namespace) -> int:
    words = [what, str(folder), str(given.per_label), str(given.pairs), str(given.batch_size)]
    return told("import calibration; calibration.child()", *words)["peak"]


def child() -> None:
    """One of the two in a process of its own; prints the most memory that it held."""
    what, folder, per_label, pairs, batch_size = sys.argv[1:]
    torch.set_num_threads(1)
    path = Path(folder) / "base"
    if what == "bare":
        inputs = prepare(Settings(model=str(path), license="apache-2.0"))
        model, _ = load_base(path, inputs.family, dtype="auto", device="cpu")
        repeat(model, torch.load(Path(folder) / "calls.pt", mmap=True))
    else:
        given = argparse.Namespace(
            model=str(path), name="", widen=1, per_label=int(per_label), pairs=int(pairs),
            batch_size=int(batch_size),
        )  # fmt: skip
        with tempfile.TemporaryDirectory(dir=folder) as own:
            base = subject(given, Path(own))
            _calibrate(base, *base.load(), given)
    print(json.dumps({"peak": peak_bytes(torch.device("cpu"))}))


if __name__ == "__main__":
    main()
