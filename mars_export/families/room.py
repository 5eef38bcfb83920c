"""How much memory the devices of this machine have left. torch is imported when asked."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError

__all__ = ["DISK", "UNKNOWN", "free_bytes", "limits", "room_on"]

DISK: Final = "disk"
_UNITS: Final = {"KB": 10**3, "MB": 10**6, "GB": 10**9, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}
UNKNOWN: Final = 2**63 - 1
"""Bytes where nothing says how many: no limit is worked out then."""
_GROUP: Final = Path("/sys/fs/cgroup")
_MEMINFO: Final = Path("/proc/meminfo")


def limits(text: str) -> dict[str, int]:
    """Bytes by device of what `--max-memory` says, for example `0=20GiB,cpu=60GiB`; GPUs first.

    Raises:
        ValueError: if it says something else; what it should be.
    """
    found: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"([0-9]+|cpu)=([0-9]+(?:\.[0-9]+)?)([KMG]i?B)", part.strip(), re.I)
        if match is None:
            raise ValueError(
                "numbers of GPUs or cpu, each with a size, for example 0=20GiB,cpu=60GiB"
            )
        device, number, unit = match.groups()
        name = "cpu" if device.lower() == "cpu" else str(int(device))
        if name in found:
            raise ValueError(f"one size for each device, and {name} has two")
        found[name] = int(float(number) * _UNITS[unit.upper()])
    order = sorted(found, key=lambda name: (name == "cpu", name.zfill(9)))
    return {name: found[name] for name in order}


def room_on(device: str) -> int:
    """Bytes that are free on one torch device."""
    return _on_gpu(device) if device.startswith("cuda") else _in_memory()


def free_bytes(asked: Mapping[str, int] | None = None) -> dict[str, int]:
    """Bytes by device that a device map may fill: every GPU by its number, and `cpu`.

    Args:
        asked: Of `limits`; devices that it leaves out are not used, as in accelerate.
    """
    import torch

    gpus = [str(number) for number in range(torch.cuda.device_count())]
    there = {name: _on_gpu(f"cuda:{name}") for name in gpus} | {"cpu": _in_memory()}
    if asked is None:
        return there
    for name in asked.keys() - there.keys():
        raise ExportError(f"--max-memory: there is no GPU {name}; torch sees {len(gpus)}")
    return {name: min(size, there[name]) for name, size in asked.items()}


def _on_gpu(device: str) -> int:
    import torch

    return int(torch.cuda.mem_get_info(device)[0])


def _in_memory() -> int:
    """What the machine has, or what its container may take if that is less."""
    return min(_available(), _of_group())


def _available() -> int:
    """Of Linux with its swap; elsewhere the whole memory, where the system tells."""
    try:
        lines = dict(line.split(":", 1) for line in _MEMINFO.read_text().splitlines())
        return sum(1024 * int(lines[name].split()[0]) for name in ("MemAvailable", "SwapFree"))
    except (OSError, KeyError, ValueError):
        pass
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):  # Windows
        return UNKNOWN


def _of_group() -> int:
    """Of the control group, if it sets a limit."""
    try:
        most, used = ((_GROUP / name).read_text() for name in ("memory.max", "memory.current"))
        cache = re.search(r"^inactive_file (\d+)", (_GROUP / "memory.stat").read_text(), re.M)
        return int(most) - int(used) + (int(cache[1]) if cache else 0)
    except (OSError, ValueError):
        return UNKNOWN
