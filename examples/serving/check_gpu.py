"""Checks a steered checkpoint in vLLM on this machine's GPU, in at most 10 minutes.

    python check_gpu.py steered base --output check.json

Parts, each in a process of its own (`gpu_sides.py`), whose output lies beside the results:

transformers  what each request gets with steering off and on
eager         vLLM without graphs: the same positions, gates and first tokens
graphs        with full CUDA graphs, prompts in pieces: the same first tokens as without
speed         decoding at 0.99 of the base's speed at least, in pairs of runs that take turns
default       the base as vLLM serves it by itself; its speed is told, no more

A part that did not run says why. Without a GPU all of them run, and the results say what that
did not show.
"""

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

COMPARED = ("transformers", "eager", "graphs")
PARTS = (*COMPARED, "speed", "default")
SIDES = Path(__file__).with_name("gpu_sides.py")
SLOWEST = 0.99
SHOWS = 0.1
"""Nats of a first token by which steering has to move a request that shows anything."""
GATES = {"text": 0.01}
OTHER_GATES = 0.1
"""vLLM's Transformers backend leaves out what some models do beside pictures and clips."""
# Model runner V2, which vLLM takes where Triton is installed, cannot be steered.
STEERED = {"MARS_VLLM_UNTESTED": "1", "VLLM_USE_V2_MODEL_RUNNER": "0"}
ERROR = re.compile(r"^(?:\(.*?\] )?(?:\w+\.)*\w*(?:Error|Exception): .+$", re.MULTILINE)


class Said(NamedTuple):
    """What a side says to a request.

    token: its first one. on, off: log-probability of the token that Transformers begins with,
    steered and not; vLLM says `on` alone. steered: position, modality and gate of each steered
    position, if it tells. length: tokens of the prompt. kind: modality of the request.
    """

    token: int
    on: float
    steered: list[Any] | None = None
    off: float | None = None
    length: int = 0
    kind: str = "text"


class Difference(NamedTuple):
    """Something that a side does otherwise. seen: whether pictures or clips may be the reason."""

    words: str
    seen: bool


def differences(wanted: Sequence[Said], told: Sequence[Said]) -> list[Difference]:
    """Where a side does otherwise than it should."""
    if len(wanted) != len(told):
        return [Difference(f"{len(told)} answers to {len(wanted)} requests", False)]
    return [
        Difference(f"request {number}: {line}", one.kind != "text" and "steered at" not in line)
        for number, (one, other) in enumerate(zip(wanted, told, strict=True))
        for line in difference(one, other)
    ]


def difference(one: Said, other: Said) -> list[str]:
    """What of one request is otherwise, in words."""
    found = []
    if other.token != one.token:
        found.append(f"first token {other.token}, not {one.token}")
    if moved(one) and not abs(other.on - one.on) < abs(other.on - (one.off or 0.0)):
        found.append(f"log-probability {other.on:.2f}, nearer to that without steering")
    if other.steered is None:
        return found
    at, expected = ([row[:2] for row in said.steered or ()] for said in (other, one))
    if at != expected:
        return [*found, f"steered at {at}, not {expected}"]
    return found + [
        f"a gate of {kind} differs by {apart:.3f}"
        for kind, apart in gates(one, other)
        if not apart <= GATES.get(kind, OTHER_GATES)
    ]


def as_said(wanted: Sequence[Said], told: Sequence[Said]) -> list[Said]:
    """What Transformers wants, as a side has said it."""
    return [
        one._replace(token=other.token, on=other.on)
        for one, other in zip(wanted, told, strict=False)
    ]


def moved(said: Said) -> bool:
    """Whether steering changes how Transformers begins."""
    return said.off is not None and abs(said.on - said.off) > SHOWS


def gates(one: Said, other: Said) -> list[tuple[str, float]]:
    """Modality and difference of each gate that both sides tell."""
    pairs = zip(one.steered or (), other.steered or (), strict=False)
    return [
        (mine[1], abs(mine[2] - theirs[2]))
        for mine, theirs in pairs
        if mine[2] is not None and theirs[2] is not None
    ]


def ratio(pairs: Sequence[Sequence[float]]) -> float:
    """Median over pairs of the base's seconds by those of the steered model."""
    return median(base / steered for steered, base in pairs)


def results(told: dict[str, Any], ended: dict[str, str]) -> dict[str, Any]:
    """The results file: everything that was found, and whether all of it is as it should be.

    Args:
        told: What parts say, by name.
        ended: Why each part did not run; empty where it ran.
    """
    wrong = [f"{name}: {why}" for name, why in ended.items() if why]
    found: dict[str, Any] = {"parts": {name: why or "ran" for name, why in ended.items()}}
    for look in (compared, timed):
        faults, more = look(told)
        wrong += faults
        found |= more
    for name in (name for name in ("graphs", "speed") if name in told):
        mode = found[f"graphs_of_{name}"] = told[name]["graphs"]
        if "FULL" not in mode:
            wrong.append(f"{name}: vLLM ran with {mode} as its graphs, not with full ones")
    return {"passed": not wrong, "wrong": wrong, **found}


def compared(told: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with what the sides say, and what is found."""
    said = {name: [Said(**one) for one in told[name]["said"]] for name in COMPARED if name in told}
    if "transformers" not in said:
        return [], {}
    wanted, eager = said["transformers"], said.get("eager")
    found = told["transformers"]["machine"] | {
        "requests": len(wanted),
        "changed_by_steering": sum(map(moved, wanted)),
    }
    wrong = [] if any(map(moved, wanted)) else ["steering changes no first token; nothing is shown"]
    if eager is not None:
        # What the two see in a picture may differ without steering too: that is told, and no fault.
        apart, known = differences(wanted, eager), told["eager"]["otherwise"]
        wrong += [f"eager: {one.words}" for one in apart if not (one.seen and known)]
        found["of_vllm_itself"] = known
        found["beside_pictures_and_clips"] = [one.words for one in apart if one.seen and known]
        gaps = [gap for pair in zip(wanted, eager, strict=False) for gap in gates(*pair)]
        # Sorted, the largest of each kind comes last.
        found["largest_gate_difference"] = dict(sorted(gaps))
    if "graphs" in said:
        apart = differences(as_said(wanted, eager or wanted), said["graphs"])
        wrong += [f"graphs: {one.words}" for one in apart]
    return wrong, found


def timed(told: dict[str, Any]) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with the speed of decoding, and what it is."""
    if "speed" not in told:
        return [], {}
    pairs = told["speed"]["pairs"]
    share = ratio(pairs)
    found: dict[str, Any] = {"decode_ratio": share, "pairs_in_seconds": pairs}
    if "default" in told:
        mine = median(steered for steered, _ in pairs)
        found["decode_ratio_to_default"] = median(told["default"]["seconds"]) / mine
    slow = f"speed: decoding at {share:.3f} of the base's speed"
    return ([] if share >= SLOWEST else [slow]), found


def run(name: str, asked: argparse.Namespace, limit: float) -> tuple[str, Any]:
    """Run a part: why it did not, or nothing, and what it says.

    Args:
        name: Of the part.
        asked: The command line.
        limit: Seconds after which it is ended, with all that it has started.
    """
    if limit <= 0:
        return "no time was left", None
    said, wanted = (asked.output.with_suffix(f".{part}.json") for part in (name, "transformers"))
    log = asked.output.with_suffix(f".{name}.log")
    if name in COMPARED[1:] and not wanted.exists():  # it failed
        return "there is nothing of Transformers to compare it with", None
    said.unlink(missing_ok=True)
    places = [asked.steered, asked.base, said, "--wanted", wanted]
    counts = ["--pairs", asked.pairs, "--tokens", asked.tokens]
    environment = dict(os.environ) if name == "default" else {**os.environ, **STEERED}
    environment.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    with log.open("wb") as stream:
        begun = subprocess.Popen(
            [sys.executable, *map(str, [SIDES, name, *places, *counts])],
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        )
        try:
            code = begun.wait(limit)
        except subprocess.TimeoutExpired:
            os.killpg(begun.pid, signal.SIGKILL)
            begun.wait()
            return f"was ended after {limit:.0f} s; see {log}", None
    if code:
        return f"{cause(log.read_text(errors='replace'))}; see {log}", None
    return "", json.loads(said.read_text())


def cause(log: str) -> str:
    """The first error that a log names: those that follow are its consequences."""
    lines = log.strip().splitlines() or ["it said nothing"]
    found = ERROR.search(log)
    return (found[0] if found else lines[-1])[:500]


def chosen(parts: Sequence[str]) -> set[str]:
    """These parts, and what they are compared with."""
    return {*parts} | ({COMPARED[0]} if {*parts} & {*COMPARED} else set())


def parser() -> argparse.ArgumentParser:
    """The command line."""
    made = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    made.add_argument("steered", help="directory of the steered checkpoint")
    made.add_argument("base", help="directory of its base model")
    made.add_argument("--output", type=Path, required=True, help="results, as JSON")
    made.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS, help="these alone")
    made.add_argument("--minutes", type=float, default=10, help="for all of it")
    made.add_argument("--pairs", type=int, default=8)
    made.add_argument("--tokens", type=int, default=256, help="decoded per request")
    return made


def main() -> None:
    """Write the results; exit code 1 if anything is not as it should be."""
    asked = parser().parse_args()
    if asked.pairs < 1 or asked.tokens < 1 or not asked.minutes > 0:
        parser().error("--pairs and --tokens have to be 1 at least, and --minutes more than 0")
    end = time.monotonic() + 60 * asked.minutes
    parts = [name for name in PARTS if name in chosen(asked.parts)]
    ended = {name: "was left out" for name in PARTS if name not in parts}
    told: dict[str, Any] = {}
    found: dict[str, Any] = {}
    for name in parts:
        print(f"{name} ...", flush=True)
        ended[name], said = run(name, asked, end - time.monotonic())
        if said is not None:
            told[name] = said
        found = results(told, ended)  # after each part: what ends this program loses one at most
        asked.output.write_text(json.dumps(found, indent=2) + "\n")
    print(json.dumps(found, indent=2))
    sys.exit(0 if found["passed"] else 1)


if __name__ == "__main__":
    main()
