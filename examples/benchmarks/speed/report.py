"""The results of a run as Markdown, and their place in the README."""

from __future__ import annotations

import os
import platform
import re
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

import mars_export
from speed.cases import CONTROL, STEERED
from speed.tools import TOOLS

__all__ = ["GOALS", "into_readme", "machine", "table", "versions"]

Json = dict[str, Any]
GOALS = {"decode": 0.99, "prefill": 0.98}
"""Least ratio of base time to steered time."""
LOAD = (1.05, 0.02)
"""Most load time over the base's, or seconds more than it."""


def machine(device: torch.device) -> Json:
    """What the numbers were taken on."""
    names = re.findall(r"model name\s*:\s*(.+)", _read("/proc/cpuinfo")) or [platform.processor()]
    gpu = torch.cuda.get_device_name(device) if device.type == "cuda" else None
    return {
        "cpu": names[0], "cores": os.cpu_count(), "threads": torch.get_num_threads(), "gpu": gpu,
        "system": platform.system(), "load": round(os.getloadavg()[0], 1),
    }  # fmt: skip


def versions() -> Json:
    """Of everything that takes part; None for a tool that is not installed."""
    ours = {"mars-export": mars_export.__version__, "python": platform.python_version()}
    libraries = {name: version(name) for name in ("torch", "transformers", "numpy")}
    return {**ours, **libraries, **{tool.name: tool.version() for tool in TOOLS if tool.pip}}


def table(results: Json) -> str:
    """The Markdown of one run."""
    lines = [_heading(results), "", *_steered(results), "", *_tools(results), "", *_rest(results)]
    return "\n".join(lines)


def into_readme(readme: Path, name: str, text: str) -> None:
    """Put a table between `<!-- results NAME -->` and the next `<!-- end -->`.

    Raises:
        ValueError: if the README has no such markers.
    """
    pattern = re.compile(rf"(<!-- results {re.escape(name)} -->\n).*?(<!-- end -->)", re.DOTALL)
    old = readme.read_text(encoding="utf-8")
    if not pattern.search(old):
        raise ValueError(f"{readme} has no place `<!-- results {name} -->` ... `<!-- end -->`")
    readme.write_text(pattern.sub(lambda m: f"{m[1]}{text}\n{m[2]}", old), encoding="utf-8")


def _heading(results: Json) -> str:
    where, sizes = results["machine"], results["sizes"]
    on = where["gpu"] or f"{where['cpu']}, {where['threads']} threads"
    used = ", ".join(f"{k} {v}" for k, v in results["versions"].items() if v)
    return (
        f"Shape {results['shape']}, bfloat16, on {on}. Pictures of {sizes['side'] ** 2 // 4} "
        f"tokens, {sizes['new']} new tokens. {used}."
    )


def _steered(results: Json) -> list[str]:
    lines = ["| run | prompt | tokens | batch | phase | ratio | base against itself | rounds |"]
    lines.append("|" + " --- |" * 8)
    rows = [row for row in results["rows"] if not row["way"].startswith("tools")]
    control = {_key(row): _interval(row) for row in rows if row["subject"] == CONTROL}
    for row in (row for row in rows if row["subject"] == STEERED):
        ratio, rounds = _judged(row, GOALS[row["phase"]]), len(row["ratios"])
        cells = [*_key(row), ratio, control[_key(row)], rounds]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _key(row: Json) -> tuple[str, str, int, int, str]:
    return row["way"], row["prompt"], row["tokens"], row["rows"], row["phase"]


def _tools(results: Json) -> list[str]:
    lines = [
        "| one-layer edit by | model | tokens | batch | prefill ratio | decode ratio | rounds |"
    ]
    lines.append("|" + " --- |" * 7)
    found: dict[tuple[str, str, int, int], dict[str, Json]] = {}
    for row in results["rows"]:
        if row["way"].startswith("tools"):
            key = (row["subject"], row["way"], row["tokens"], row["rows"])
            found.setdefault(key, {})[row["phase"]] = row
    for (subject, way, tokens, batch), phases in found.items():
        model = "whole" if way == "tools" else "text decoder"
        cells = [_interval(phases[phase]) for phase in ("prefill", "decode")]
        line = [subject, model, tokens, batch, *cells, len(phases["decode"]["ratios"])]
        lines.append("| " + " | ".join(map(str, line)) + " |")
    lines += [f"\nSkipped: {line}." for line in results["skipped"]]
    if results["not_measured"]:
        lines.append(f"\nOut of time, not measured: {'; '.join(results['not_measured'])}.")
    return lines


def _rest(results: Json) -> list[str]:
    load, export, held = results["load"], results["export"], results["resources"]
    seconds, mib = f"{export['beside_seconds']:.2f} s", f"{export['new_bytes'] / 2**20:.2f} MiB"
    more = load["subject_seconds"] - load["base_seconds"]
    rows = [
        ("load time, steered over base", f"{1 / load['ratio']:.3f}, {1000 * more:+.0f} ms",
         1 / load["ratio"] <= LOAD[0] or more <= LOAD[1], "<= 1.05, or 20 ms more"),
        ("export beside hashing", seconds, export["beside_seconds"] < 2, "< 2 s"),
        ("new bytes on disk", mib, export["new_bytes"] < 2e6, "< 2 MB"),
    ]  # fmt: skip
    extra = held["resident_bytes"]
    rows.append(("memory held beside the base's", f"{extra} bytes", extra < 1e6, "< 1 MB"))
    counted = [(f"operations, {k}", v) for k, v in results["operations"].items() if k == "decode"]
    for key in (key for key in held if key.endswith(", base") and held[key] is not None):
        what = key.removesuffix(", base")
        counted.append((what, {"base": held[key], STEERED: held[f"{what}, {STEERED}"]}))
    for what, both in counted:
        more, few = both[STEERED] - both["base"], 1e6 if "bytes" in what else 1
        goal = "< 1 MB more" if "bytes" in what else "none more"
        text = f"{both['base']} -> {both[STEERED]}"
        rows.append((f"{what}, base -> steered", text, more < few, goal))
    lines = ["| besides | measured | goal |", "| --- | --- | --- |"]
    return lines + [
        f"| {what} | {value} | {goal}: {'met' if met else '**missed**'} |"
        for what, value, met, goal in rows
    ]


def _interval(row: Json) -> str:
    return f"{row['ratio']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"


def _judged(row: Json, goal: float) -> str:
    missed = " open" if row["high"] >= goal else " **missed**"
    return _interval(row) + (" met" if row["ratio"] >= goal else missed)


def _read(path: str) -> str:
    file = Path(path)
    return file.read_text(encoding="utf-8") if file.exists() else ""
