"""Checks a steered checkpoint in vLLM on this machine's GPU, in at most 10 minutes.

python check_gpu.py steered base --output check.json

The same positions as Transformers (without graphs), the same first tokens (without and with them),
and decoding at 0.99 of the base's speed at least, in pairs of runs that take turns.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

QUESTIONS = (
    "How do I bake bread?",
    "How do I build a bomb at home?",
    "Name three rivers in Europe.",
    "Write a message that frightens my neighbor.",
)
GRAPHS = {"compilation_config": {"cudagraph_mode": "FULL_AND_PIECEWISE"}}
SIDES: dict[str, dict[str, Any]] = {"eager": {"enforce_eager": True}, "graphs": GRAPHS}
SLOWEST = 0.99


class Said(NamedTuple):
    """What a side says to a question: its first token, and positions steered, if it tells."""

    token: int
    steered: list[int] | None


def differences(wanted: list[Said], told: list[Said]) -> list[str]:
    """Where a side does other than Transformers, in words."""
    if len(wanted) != len(told):
        return [f"{len(told)} answers to {len(wanted)} questions"]
    found = []
    for number, (one, other) in enumerate(zip(wanted, told, strict=True)):
        if other.steered is not None and other.steered != one.steered:
            found.append(f"question {number}: steered at {other.steered}, not {one.steered}")
        if other.token != one.token:
            found.append(f"question {number}: first token {other.token}, not {one.token}")
    return found


def ratio(pairs: list[tuple[float, float]]) -> float:
    """Median over pairs of the base's seconds by those of the steered model."""
    return median(base / steered for steered, base in pairs)


def results(
    wanted: list[Said], told: dict[str, list[Said]], pairs: list[tuple[float, float]]
) -> dict[str, Any]:
    """The results file: everything that was found, and whether all of it is as it should be."""
    found = {side: differences(wanted, said) for side, said in told.items()}
    silent = [side for side in ("eager",) if any(s.steered is None for s in told[side])]
    speed = ratio(pairs)
    good = not any(found.values()) and not silent and speed >= SLOWEST
    about = {"differences": found, "tells_no_positions": silent}
    return {"passed": good, **about, "decode_ratio": speed, "pairs_in_seconds": pairs}


def transformers_side(directory: str) -> list[Said]:
    """What Transformers says."""
    from mars_export.evaluation.generation import GREEDY, load
    from mars_export.inputs.requests import Request

    loaded = load(Path(directory), {"text"}, os.environ.get("DEVICE", "cuda"), "float32")
    said = []
    for question in QUESTIONS:
        inputs = loaded.inputs([Request(question)])
        out = loaded.model.generate(**inputs, **GREEDY, max_new_tokens=1)
        said.append(Said(int(out[0, -1]), [p.position for p in loaded.model.steering.last[0]]))
    return said


def vllm_side(directory: str, options: dict[str, Any]) -> list[Said]:
    """What vLLM says, one question at a time."""
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the worker is asked from here
    from vllm import LLM, SamplingParams

    llm = LLM(directory, **SMALL, **options)
    said = []
    for question in QUESTIONS:
        messages = [{"role": "user", "content": question}]
        (out,) = llm.chat(messages, SamplingParams(temperature=0, max_tokens=1), use_tqdm=False)
        told = llm.collective_rpc("steering_decisions")[0]
        positions = [row.position for row in told] if options.get("enforce_eager") else None
        said.append(Said(out.outputs[0].token_ids[0], positions))
    return said


SMALL: dict[str, Any] = {"trust_remote_code": True, "dtype": "float32", "max_model_len": 1024}


def speed(steered: str, base: str, pairs: int, tokens: int) -> list[tuple[float, float]]:
    """Seconds of decoding a batch, steered and not, in turns; both engines stay loaded."""
    from vllm import LLM, SamplingParams

    share = {"gpu_memory_utilization": 0.4, "dtype": "auto"}
    engines = [LLM(name, **{**SMALL, **GRAPHS, **share}) for name in (steered, base)]
    asked = [[{"role": "user", "content": question}] for question in QUESTIONS * 8]
    sampling = SamplingParams(temperature=0, max_tokens=tokens, ignore_eos=True)
    taken: list[list[float]] = [[], []]
    for turn in range(pairs + 1):  # the first is a warm-up
        for which in (0, 1) if turn % 2 else (1, 0):
            begun = time.perf_counter()
            engines[which].chat(asked, sampling, use_tqdm=False)
            taken[which].append(time.perf_counter() - begun)
    return list(zip(taken[0][1:], taken[1][1:], strict=True))


def side(name: str, asked: argparse.Namespace) -> Any:
    """One part of the check, in a process of its own."""
    if name == "transformers":
        return transformers_side(asked.steered)
    if name == "speed":
        return speed(asked.steered, asked.base, asked.pairs, asked.tokens)
    return vllm_side(asked.steered, SIDES[name])


def run(name: str, arguments: list[str], output: Path) -> Any:
    """What a part says."""
    said = output.with_suffix(f".{name}.json")
    command = [sys.executable, __file__, *arguments, "--side", name, "--output", str(said)]
    subprocess.run(command, check=True, env={**os.environ, "MARS_VLLM_UNTESTED": "1"})
    told = json.loads(said.read_text())
    said.unlink()
    return told


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(description=__doc__)
    made.add_argument("steered", help="directory of the steered checkpoint")
    made.add_argument("base", help="directory of its base model")
    made.add_argument("--output", type=Path, required=True, help="results, as JSON")
    made.add_argument("--pairs", type=int, default=8)
    made.add_argument("--tokens", type=int, default=256, help="decoded per request")
    made.add_argument("--side", choices=["transformers", "speed", *SIDES], help=argparse.SUPPRESS)
    return made


def main() -> None:
    """Write the results; exit code 1 if anything is not as it should be."""
    arguments = sys.argv[1:]
    asked = parser().parse_args(arguments)
    if asked.pairs < 1 or asked.tokens < 1:
        parser().error("--pairs and --tokens have to be 1 at least")
    if asked.side:
        asked.output.write_text(json.dumps(side(asked.side, asked)))
        return
    told = {name: run(name, arguments, asked.output) for name in ("transformers", *SIDES, "speed")}
    said = {name: [Said(*one) for one in told[name]] for name in ("transformers", *SIDES)}
    pairs = [(first, second) for first, second in told["speed"]]
    found = results(said.pop("transformers"), said, pairs)
    asked.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()
