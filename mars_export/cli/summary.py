"""The end of a run: what changed, where it is, how to load it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from mars_export.checkpoint.manifest import Manifest
from mars_export.evaluation.report import REFERENCE, REPORT_NAME, Cell, Report, label
from mars_export.families.directory import read_json
from mars_export.families.quantization import SCHEMES

if TYPE_CHECKING:
    from mars_export.evaluation.utility import Utility
    from mars_export.integrations.finetune.record import Drift
    from mars_export.methods.base import MethodRecord

__all__ = [
    "print_drift",
    "print_results",
    "print_shortfalls",
    "print_summary",
    "print_utility",
]


def print_summary(output: Path) -> None:
    """Print the results of a steered directory, its path, lines that load it, and what it lacks."""
    print_results(Report.model_validate_json((output / REPORT_NAME).read_bytes()))
    print(f"\n{output}\n")
    auto_map = read_json(output / "config.json")["auto_map"]
    auto = next(name for name in auto_map if name.startswith("AutoModelFor"))
    calibration = Manifest.read(output).calibration
    source = calibration.source
    scheme = SCHEMES.get(source.quantization)
    imports, quantized = f"from transformers import {auto}, AutoProcessor", ""
    if scheme is not None:
        imports = f"{scheme.imports}{imports}, {scheme.config}"
        code = scheme.code(source.dtype)
        quantized = f', dtype="{source.dtype}",\n    quantization_config={code}'
    print(imports)
    for name, loader, more in (("model", auto, quantized), ("processor", "AutoProcessor", "")):
        print(f"{name} = {loader}.from_pretrained({str(output)!r}, trust_remote_code=True{more})")
    print_shortfalls(calibration.record)


def print_shortfalls(record: MethodRecord) -> None:
    """Print the goals that a calibration missed and what it found, a sentence a line."""
    headed = (
        (f"The calibration missed {len(record.missed)} of its goals:", record.missed),
        ("What the calibration found:", record.findings),
    )
    for heading, sentences in headed:
        if sentences:
            print("", heading, *(f"- {text}" for text in sentences), sep="\n")


def print_results(report: Report) -> None:
    """Print the refusals of every arm for every modality and label, with the number of requests.

    Where the judge left too much open, counts and the reason stand instead of rates.
    """
    text = _percent if report.no_headline is None else _count
    arms = [arm.name for arm in report.arms]
    table = Table("requests", "n", *arms, title=f"refused, suite {report.suite.name}")
    cells = {(cell.modality, cell.harmful, cell.arm): cell for cell in report.cells}
    for modality, harmful, arm in cells:
        if arm == REFERENCE:
            row = [cells.get((modality, harmful, name)) for name in arms]
            n = cells[modality, harmful, arm].refused.n
            table.add_row(
                label(harmful, modality), str(n), *(text(cell) if cell else "" for cell in row)
            )
    Console(highlight=False).print(table)
    if report.no_headline is not None:
        print(f"no headline number: {report.no_headline}")


def print_utility(utility: Utility) -> None:
    """Print every metric off and on, its paired difference, and whether the loss is acceptable."""
    table = Table("task", "metric", "n", "off", "on", "difference", "loss within margin")
    for task in utility.tasks:
        if not task.metrics:
            table.add_row(task.task, "scored as a whole; see its log", str(task.n))
        for m in task.metrics:
            change = f"{m.difference:+.3f}"
            if m.low is not None and m.high is not None:
                change += f" ({m.low:+.3f} to {m.high:+.3f})"
            verdict = {True: "yes", False: "not shown", None: "no interval"}[m.not_inferior]
            row = (task.task, m.name, str(m.n), f"{m.off:.3f}", f"{m.on:.3f}", change, verdict)
            table.add_row(*row)
        refused = (str(task.n), str(task.refused_off), str(task.refused_on))
        table.add_row(task.task, "refusals (count)", *refused)
    Console(highlight=False).print(table)


def print_drift(drift: Drift) -> None:
    """Print every difference with its limit, and the verdict."""
    table = Table("difference", "finding", "value", "limit", "fits")
    for d in drift.differences:
        fits = "yes" if d.fits else "no"
        table.add_row(d.name, d.sentence, f"{d.value:.3f}", f"{d.limit:.3f}", fits)
    if drift.differences:
        Console(highlight=False).print(table)
    print(f"verdict: {drift.verdict}")


def _percent(cell: Cell) -> str:
    rate = cell.refused
    return f"{rate.rate:.1%} ({rate.low:.1%} to {rate.high:.1%})"


def _count(cell: Cell) -> str:
    return f"{cell.refused.count} ({cell.unknown.count} unknown)"
