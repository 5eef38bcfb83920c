"""Most memory that one process holds: of loading a checkpoint and answering one prompt."""

from __future__ import annotations

import argparse
import json
import os
import re
import resource
import subprocess
import sys
from pathlib import Path

import torch

from speed.bench import load
from speed.requests import make_request
from speed.shapes import SHAPES

__all__ = ["main", "peak_bytes", "told"]

_STEADY = {"MALLOC_MMAP_THRESHOLD_": "65536"}
"""Else the C library keeps freed blocks or gives them back as it comes, some 5 % more or less."""


def told(code: str, *arguments: str) -> dict[str, int]:
    """What Python code prints last, as JSON, in a process of its own that imports from here."""
    path = f"import sys; sys.path.insert(0, {str(Path(__file__).parents[1])!r}); "
    done = subprocess.run(
        [sys.executable, "-c", path + code, *arguments],
        check=True, capture_output=True, text=True, env={**os.environ, **_STEADY},
    )  # fmt: skip
    found: dict[str, int] = json.loads(done.stdout.splitlines()[-1])
    return found


def peak_bytes(device: torch.device) -> int:
    """Most bytes so far: allocated on a GPU, else resident in memory."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():  # the other number counts what a parent held when it started this process
        found = re.search(r"VmHWM:\s*(\d+) kB", status.read_text(encoding="utf-8"))
        if found:
            return 1024 * int(found[1])
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else 1024 * most


def main() -> None:
    """Load a checkpoint, generate two tokens, and print the peak before and after."""
    parser = argparse.ArgumentParser(description=__doc__)
    add = parser.add_argument
    add("path", type=Path)
    add("--shape", choices=SHAPES, required=True)
    add("--device", default="cpu")
    add("--tokens", type=int, required=True)
    add("--rows", type=int, required=True)
    given = parser.parse_args()
    device = torch.device(given.device)
    torch.set_num_threads(1)
    model = load(given.path, device)
    loaded = peak_bytes(device)
    request = make_request(SHAPES[given.shape], "text", given.rows, given.tokens, 4, device)
    model.generate(**request, max_new_tokens=2, min_new_tokens=2, do_sample=False)
    print(json.dumps({"loaded": loaded, "peak": peak_bytes(device)}))


if __name__ == "__main__":
    main()
