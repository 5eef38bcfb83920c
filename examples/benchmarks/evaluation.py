"""What an evaluation takes beside bare generation over the same requests."""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from speed.job import parser, ratio, run
from speed.subjects import Subject, add_options, subject

from mars_export.calibration.data import MeasurementOptions
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.evaluation import evaluate as evaluation
from mars_export.evaluation import generation, ready
from mars_export.evaluation.engines import in_process
from mars_export.evaluation.generation import GREEDY, SAMPLED, load, rescaled
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.suite import Suite
from mars_export.inputs import requests
from mars_export.methods.calibrate import calibrate

EXAMPLES = """examples:
  python evaluation.py --per-label 32 --per-cell 4 --new-tokens 8 --rounds 1
  python evaluation.py --widen 64 --json results/evaluation-cpu.json --readme"""
GOAL = 1.1
PARTS = {
    "load": "loading",
    "generate": "generation",
    "inputs": "template, tokens, pixels",
    "report": "statistics and report",
}


def main(arguments: list[str] | None = None) -> None:
    """Measure, or print the table of a run that was measured before."""
    made = parser(__doc__, EXAMPLES)
    add_options(made)
    add = made.add_argument
    add("--per-cell", type=int, default=32, help="requests of each label and modality, at most")
    add("--new-tokens", type=int, default=64)
    add("--batch-size", type=int, default=16)
    add("--controls", action="store_true", help="with the controls and doses, as by default")
    add("--rounds", type=int, default=3)
    run(made.parse_args(arguments), measure, table)


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Both in turn: the evaluation, and loading and generating alone."""
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        base = subject(given, Path(folder))
        steered = _exported(base, Path(folder), given)
        suite = _cut(base.inputs.suite, given.per_cell)
        asked: list[dict[str, Any]] = []
        with _asked(asked):  # this one warms up, too
            _evaluate(steered, suite, given)
        seconds: dict[str, list[float]] = {"evaluation": [], "bare": []}
        inside: list[dict[str, float]] = []
        for turn in range(given.rounds):
            for name in list(seconds)[:: -1 if turn % 2 else 1]:
                with _parts() as parts:
                    start = time.process_time()
                    if name == "bare":
                        _bare(steered, base, asked)
                    else:
                        _evaluate(steered, suite, given)
                    seconds[name].append(time.process_time() - start)
                if name == "evaluation":
                    inside.append(parts)
    answers = sum(len(batch["inputs"]["input_ids"]) for batch in asked)
    return {
        "kind": "evaluation", "model": base.name, "seconds": seconds, "inside": inside,
        "answers": answers, "batches": len(asked), "new_tokens": given.new_tokens,
        "batch_size": given.batch_size, "controls": given.controls,
        "time": ratio(seconds["evaluation"], seconds["bare"]),
    }  # fmt: skip


def table(results: dict[str, Any]) -> str:
    """The Markdown of one run."""
    found, rounds = results["time"], results["time"]["rounds"]
    whole, alone = (sum(results["seconds"][name]) / rounds for name in ("evaluation", "bare"))
    met = "met" if found["ratio"] <= GOAL else "**missed**"
    parts = {name: sum(part[name] for part in results["inside"]) / rounds for name in PARTS}
    rest = whole - sum(parts.values())
    lines = [
        f"{results['model']}, batches of {results['batch_size']}, on "
        f"{results['machine']['cpu']}. {results['answers']} answers of at most "
        f"{results['new_tokens']} tokens in {results['batches']} batches, "
        f"{'with' if results['controls'] else 'without'} controls and doses.", "",
        "| evaluation | seconds | beside bare generation | goal |", "|" + " --- |" * 4,
        f"| whole | {whole:.1f} | {found['ratio']:.3f} [{found['least']:.3f}, "
        f"{found['most']:.3f}] | <= {GOAL}: {met} |",
    ]  # fmt: skip
    for name, seconds in [*parts.items(), ("", rest)]:
        what = PARTS.get(name, "all else")
        lines.append(f"| of that: {what} | {seconds:.1f} | {seconds / alone:.3f} | |")
    return "\n".join(lines)


def _exported(base: Subject, folder: Path, given: argparse.Namespace) -> Path:
    model, processor = base.load()
    measurement = MeasurementOptions(
        pairs=given.per_label, condition_requests=given.per_label, batch_size=given.batch_size
    )
    artefact = calibrate(
        model, processor, prompts=base.prompts, modalities=base.inputs.family.modalities,
        measurement=measurement,
    )  # fmt: skip
    artefact.save(folder / "calibration")
    target = folder / "steered"
    write_checkpoint(
        base.path, target, source=base.inputs.source, calibration_dir=folder / "calibration"
    )
    return target


def _cut(suite: Suite, per_cell: int) -> Suite:
    """The first requests of each modality and label."""
    counts: dict[tuple[Any, bool], int] = {}
    kept = []
    for sample in suite.samples:
        cell = (sample.modality, sample.harmful)
        if sample.split == "evaluation" and counts.get(cell, 0) < per_cell:
            counts[cell] = counts.get(cell, 0) + 1
            kept.append(sample)
    return replace(suite, samples=tuple(kept))


def _evaluate(steered: Path, suite: Suite, given: argparse.Namespace) -> None:
    shutil.rmtree(steered / "evaluation", ignore_errors=True)
    options = EvaluationOptions(
        batch_size=given.batch_size, max_new_tokens=given.new_tokens, device="cpu",
        controls=given.controls, doses=given.controls, arms=("none",),
    )  # fmt: skip
    evaluation.evaluate(steered, suite, options)


def _bare(steered: Path, base: Subject, asked: list[dict[str, Any]]) -> None:
    """What a script would do: load, and generate from inputs that are ready."""
    model = load(steered, base.inputs.family.modalities, "cpu", None).model
    for batch in asked:
        model.steering.enabled = batch["steered"]
        scaled = nullcontext() if batch["factor"] is None else rescaled(model, batch["factor"])
        if batch["seed"] is not None:
            torch.manual_seed(batch["seed"])
        how = GREEDY if batch["seed"] is None else SAMPLED
        with scaled if batch["steered"] else nullcontext():
            model.generate(**batch["inputs"], **how, max_new_tokens=batch["most"])


@contextmanager
def _asked(into: list[dict[str, Any]]) -> Iterator[None]:
    """Keep what the requests of the suite become; the self-check is none of them."""
    native = in_process.answered_by

    def answered_by(arm: Any, loaded: Any, batch: Any) -> Any:
        into.append({
            "inputs": dict(batch.inputs), "most": batch.max_new_tokens, "seed": batch.seed,
            "steered": arm.steered, "factor": arm.factor,
        })  # fmt: skip
        return native(arm, loaded, batch)

    with _replaced(in_process, "answered_by", answered_by):
        yield


@contextmanager
def _parts() -> Iterator[dict[str, float]]:
    """Processor seconds of the parts of an evaluation, while the context is open."""
    seconds = dict.fromkeys(PARTS, 0.0)

    def timed(name: str, native: Callable[..., Any]) -> Callable[..., Any]:
        def run(*args: Any, **kwargs: Any) -> Any:
            start = time.process_time()
            try:
                return native(*args, **kwargs)
            finally:
                seconds[name] += time.process_time() - start

        return run

    with (
        _replaced(in_process, "load_models", timed("load", ready.load_models)),
        _replaced(in_process, "answered_by", timed("generate", in_process.answered_by)),
        _replaced(generation, "collate", timed("inputs", requests.collate)),
        _replaced(evaluation, "_write", timed("report", evaluation._write)),
    ):
        yield seconds


@contextmanager
def _replaced(owner: Any, name: str, value: Any) -> Iterator[None]:
    native = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, native)


if __name__ == "__main__":
    main()
