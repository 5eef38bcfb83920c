"""What a steered checkpoint costs beside its base, as ratios measured in turn in one process."""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from speed.bench import Bench
from speed.cases import CASES, Case
from speed.clock import Deadline, one_thread
from speed.report import into_readme, machine, table, versions
from speed.shapes import SHAPES, Pair, Shape, make_base, make_steered

EXAMPLES = """examples:
  python benchmark.py --shape tiny
  python benchmark.py --shape 2b --device cpu --minutes 15 --json results/2b-cpu.json --readme
  python benchmark.py --shape 2b-slice --prompt-tokens 32 512 8192 --prompts text --minutes 30
  python benchmark.py --shape 8b --device cuda --minutes 6 --work /scratch --json out.json
  python benchmark.py --table results/2b-cpu.json --readme

A ratio is base time / steered time: 1.00 is no cost, 0.99 is one percent more time."""
README = Path(__file__).with_name("README.md")
GIGABYTES = {"tiny": 1, "2b-slice": 2, "2b": 6, "8b": 20}


def main(arguments: list[str] | None = None) -> None:
    """Measure, or print the table of a run that was measured before."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.table:
        results = json.loads(given.table.read_text(encoding="utf-8"))
        _publish(results, given.table.stem, given.readme)
        return
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: PyTorch sees no GPU here; use --device cpu")
    if given.new_tokens is not None and given.new_tokens < 2:
        parser.error("--new-tokens: decoding needs at least 2")
    free = shutil.disk_usage(given.work or tempfile.gettempdir()).free / 1e9
    if free < GIGABYTES[given.shape]:
        parser.error(
            f"--work: {free:.0f} GB free, {GIGABYTES[given.shape]} GB needed; name another"
        )
    with one_thread(given.device):
        results = _measure(given)
    _publish(results, given.json.stem if given.json else "", given.readme)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        description=__doc__, epilog=EXAMPLES, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--shape", choices=SHAPES, default="tiny", help="sizes of the random model")
    add("--device", choices=["cpu", "cuda"], default="cpu")
    add("--minutes", type=float, default=15, help="start no measurement after this long")
    add("--rounds", type=int, default=10, help="at most, of each case")
    add("--ways", nargs="+", choices=sorted({c.way for c in CASES}), help="leave out the others")
    add("--batches", nargs="+", type=int, choices=[1, 16], default=[1, 16])
    add("--prompts", nargs="+", choices=["text", "image"], default=["text", "image"])
    add("--prompt-tokens", type=int, nargs="+", help="default: 32 on a CPU, 512 on a GPU")
    add("--most-tokens", type=int, help="leave out batches that hold more in all")
    add("--new-tokens", type=int, help="default: 8 on a CPU, 32 on a GPU")
    add("--side", type=int, help="edge of a picture, 16-pixel patches; default: 8, GPU 28")
    add("--backend", default="inductor", help="of torch.compile; eager is for a quick try")
    add("--work", type=Path, help="directory with room for the checkpoints; they are removed")
    add("--json", type=Path, help="write all results here, anew after each case")
    add("--table", type=Path, help="measure nothing, print the table of this JSON file")
    add("--readme", action="store_true", help="put the table into README.md, by the JSON's name")
    return parser


def _measure(given: argparse.Namespace) -> dict[str, Any]:
    deadline, device = Deadline(given.minutes), torch.device(given.device)
    usual = ([512], 32, 28) if device.type == "cuda" else ([32], 8, 8)
    prompts: list[int] = given.prompt_tokens or usual[0]
    new, side = given.new_tokens or usual[1], given.side or usual[2]
    shape = SHAPES[given.shape]
    with tempfile.TemporaryDirectory(dir=given.work) as folder:
        _say("making the base")
        make_base(shape, Path(folder) / "base", device)
        _say("exporting")
        pair = make_steered(shape, Path(folder) / "base", Path(folder))
        bench = Bench(shape, pair, device, (new, side), given.backend)
        _say("loading")
        load = bench.loading(max(given.rounds, 5), deadline)
        results = {**_about(shape, pair, device), "load": load}
        results["resources"] = bench.resources(prompts[0])
        results["sizes"] = {"new": new, "side": side}
        results |= {"operations": bench.operations(prompts[0]), "rows": [], "skipped": []}
        results["not_measured"] = []
        cases = _cases(given, prompts)
        for left, case in zip(range(len(cases), 0, -1), cases, strict=True):
            name = f"{case.way}, {case.tokens} tokens of {case.prompt}, batch {case.rows}"
            if deadline.passed:
                results["not_measured"].append(name)
                continue
            _say(name)
            rows, skipped = bench.measure(case, given.rounds, deadline.share(left))
            results["rows"] += rows
            results["skipped"] += [line for line in skipped if line not in results["skipped"]]
            _write(results, given.json)
        _write(results, given.json)
    return results


def _cases(given: argparse.Namespace, prompts: list[int]) -> list[Case]:
    ways = given.ways or {case.way for case in CASES}
    return [
        replace(case, tokens=tokens)
        for tokens in prompts
        for case in CASES
        if case.way in ways and case.rows in given.batches and case.prompt in given.prompts
        if given.most_tokens is None or case.rows * tokens <= given.most_tokens
    ]


def _about(shape: Shape, pair: Pair, device: torch.device) -> dict[str, Any]:
    export = {
        "beside_seconds": pair.beside,
        "hashing_seconds": pair.hashing,
        "new_bytes": pair.written,
    }
    where = {"machine": machine(device), "versions": versions()}
    return {"shape": shape.name, **where, "export": export}


def _write(results: dict[str, Any], path: Path | None) -> None:
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def _publish(results: dict[str, Any], name: str, readme: bool) -> None:
    text = table(results)
    print(text)
    if readme:
        into_readme(README, name, text)


def _say(what: str) -> None:
    print(what, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
