"""The end of a run: what changed, where it is, how to load it."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Mapping, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rich.console import Console
from rich.table import Table

from mars_export.card.harm import gaps
from mars_export.checkpoint.manifest import Manifest
from mars_export.cli.options import print_json
from mars_export.common.names import ADAPTIVE_NAME, CARD_NAME, REPORT_NAME, UTILITY_NAME
from mars_export.evaluation.adaptive.record import at
from mars_export.evaluation.report import (
    REFERENCE,
    STEERED,
    BrokenPair,
    Cell,
    CutPair,
    HarmPair,
    KindTest,
    Report,
    label,
)

if TYPE_CHECKING:
    from mars_export.evaluation.adaptive.record import Adaptive
    from mars_export.evaluation.utility import Utility
    from mars_export.integrations.finetune.record import Drift
    from mars_export.methods.base import ArtefactRecord, MethodRecord

__all__ = [
    "print_attacks",
    "print_drift",
    "print_files",
    "print_next",
    "print_results",
    "print_shortfalls",
    "print_summary",
    "print_utility",
    "print_warnings",
    "worse",
]

_COLUMNS: Final = 4
"""Most arms that have a column each; more have a line each."""


def print_summary(output: Path, *, as_json: bool = False, quiet: bool = False) -> None:
    """Print the end of a run: its path on standard output, and for people all else beside it.

    Args:
        output: Steered directory.
        as_json: Whether standard output gets a JSON object for programs, instead of the path.
        quiet: Whether to leave out what is for people.
    """
    report = Report.model_validate_json((output / REPORT_NAME).read_bytes())
    calibration = Manifest.read(output).calibration
    record = calibration.record
    if not quiet:
        _tell(output, report, calibration)
    if as_json:
        files = {"report": str(output / REPORT_NAME), "card": str(output / CARD_NAME)}
        goals = {"missed": list(record.missed), "findings": list(record.findings)}
        print_json({"directory": str(output), **files, **goals, "worse": worse(report)})
    else:
        print(output)


def _tell(output: Path, report: Report, calibration: ArtefactRecord) -> None:
    """Print the end of a run for people, on standard error."""
    name = shlex.quote(str(output))
    with redirect_stdout(sys.stderr):
        print_results(report)
        print_warnings(output, report)
        print_shortfalls(calibration.record)
        print_files({"report": output / REPORT_NAME, "model card": output / CARD_NAME})
        print_next(
            f'mars-export ask {name} "a question"{_example(calibration.source.modalities)}',
            f"mars-export verify {name}",
            f"mars-export push {name} ORG/NAME",
        )


def _example(modalities: Sequence[str]) -> str:
    if "image" in modalities:
        return " --image picture.png"
    return " --audio sound.wav" if "audio" in modalities else ""


def print_files(files: Mapping[str, Path]) -> None:
    """Print what was written where, a line each."""
    print("")
    for name, path in files.items():
        print(f"{name + ':':12} {path}")


def print_next(*commands: str) -> None:
    """Print what to run next, a command a line."""
    print("next:", *(f"  {command}" for command in commands), sep="\n")


def print_warnings(directory: Path, report: Report) -> None:
    """Print beside the results what makes them say less than they seem to, a sentence a line."""
    modalities = Manifest.read(directory).calibration.source.modalities
    notes = [text.replace("**", "").replace("`", "") for text in gaps(report, modalities)]
    if report.overlap is not None and report.overlap.near:
        near, n = report.overlap.near, report.overlap.n
        notes.append(f"{near} of {n} requests nearly repeat a prompt of the calibration.")
    if outside := report.uncalibrated.get(STEERED):
        notes.append(f"{outside} requests lie outside what was calibrated.")
    for text in notes:
        print(f"warning: {text}", file=sys.stderr)


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

    Where the judge left too much open, counts and the reason stand instead of rates. Harm that is
    shown comes last, a line each.
    """
    table = _arms_below(report) if len(report.arms) > _COLUMNS else _arms_beside(report)
    Console(highlight=False).print(table)
    for arm in report.arms:
        if arm.detail:
            print(f"{arm.name}: {arm.detail}")
    if report.no_headline is not None:
        print(f"no headline number: {report.no_headline}")
    _print_variants(report)
    for line in worse(report):
        print(line)


def _arms_beside(report: Report) -> Table:
    text = _percent if report.no_headline is None else _count
    arms = [arm.name for arm in report.arms]
    table = Table("requests", "n", *arms, title=f"refused, suite {report.suite.name}")
    cells = {(cell.modality, cell.harmful, cell.arm): cell for cell in report.cells}
    for modality, harmful in dict.fromkeys((cell.modality, cell.harmful) for cell in report.cells):
        row = [cells.get((modality, harmful, name)) for name in arms]
        n = cells[modality, harmful, REFERENCE].refused.n
        table.add_row(
            label(harmful, modality), str(n), *(text(cell) if cell else "" for cell in row)
        )
    return table


def _arms_below(report: Report) -> Table:
    """Many arms, a line each, without intervals."""
    cells = {(cell.modality, cell.harmful, cell.arm): cell for cell in report.cells}
    kinds = list(dict.fromkeys((cell.modality, cell.harmful) for cell in report.cells))
    heads = [
        f"{label(harmful, modality)} ({cells[modality, harmful, REFERENCE].refused.n})"
        for modality, harmful in kinds
    ]
    table = Table("arm", *heads, title=f"refused, suite {report.suite.name}")
    for arm in report.arms:
        row = [cells.get((*kind, arm.name)) for kind in kinds]
        table.add_row(arm.name, *(_rate(cell, report) if cell else "" for cell in row))
    return table


def _rate(cell: Cell, report: Report) -> str:
    return f"{cell.refused.rate:.1%}" if report.no_headline is None else _count(cell)


def _print_variants(report: Report) -> None:
    """Print the refusals of controls and attacks, a line each, modalities together."""
    arms = [arm.name for arm in report.arms]
    table = Table("asked in other ways", "requests", *arms, title="refused, of how many")
    for variant in report.variants:
        for harmful in (True, False):
            row = []
            for name in arms:
                cells = [c.refused for c in variant.cells if (c.harmful, c.arm) == (harmful, name)]
                count, n = sum(r.count for r in cells), sum(r.n for r in cells)
                row.append(f"{count}/{n}" if n else "")
            if any(row):
                kind = "harmful" if harmful else "harmless"
                table.add_row(f"{variant.name} ({variant.kind})", kind, *row)
    if report.variants:
        Console(highlight=False).print(table)
    _print_skipped(report.skipped)


def _print_skipped(skipped: Mapping[str, str]) -> None:
    """What was not run, a line for each reason."""
    for reason in dict.fromkeys(skipped.values()):
        names = [name for name, own in skipped.items() if own == reason]
        print(f"not run: {', '.join(names)}: {reason}")


def worse(report: Report) -> list[str]:
    """Every harm that is shown, of the requests as they are and asked in other ways."""
    ways: list[tuple[str, list[KindTest]]] = [
        ("", [*report.pairs, *report.harm_pairs, *report.broken_pairs, *report.cut_pairs])
    ]
    ways += [
        (f", {v.name}", [*v.pairs, *v.harm_pairs, *v.broken_pairs, *v.cut_pairs])
        for v in report.variants
    ]
    return [
        f"worse with {pair.arm}: {label(pair.harmful, pair.modality)}{way} {_harm(pair)}, "
        f"{pair.difference:+.1%} ({pair.low:+.1%} to {pair.high:+.1%})"
        for way, pairs in ways
        for pair in pairs
        if pair.harm == "shown"
    ]


def _harm(pair: KindTest) -> str:
    if isinstance(pair, CutPair):
        return "more answers cut at the token limit"
    if isinstance(pair, BrokenPair):
        return "more broken answers"
    if isinstance(pair, HarmPair):
        return "more harmful answers"
    return f"refused {'less' if pair.harmful else 'more'}"


def print_attacks(directory: Path, record: Adaptive) -> None:
    """Print every curve, a row each: its budgets, and the successes of each arm at them."""
    arms = list(dict.fromkeys(point.arm for curve in record.curves for point in curve.points))
    table = Table("attack", "requests", "success", "budgets", *arms)
    table.title = "successes at each budget, in its order"
    for curve in record.curves:
        n = max(point.success.n for point in curve.points)
        budgets = dict.fromkeys(at(point.at) for point in curve.points)
        row = [curve.attack, f"{n} {curve.shown}", curve.goal, " ".join([*budgets, curve.unit])]
        for arm in arms:
            counts = [str(point.success.count) for point in curve.points if point.arm == arm]
            row.append(" ".join(counts))
        table.add_row(*row)
    Console(highlight=False).print(table)
    for goal, text in record.beginnings.items():
        print(f"optimized to be {goal}: for answers that begin with {text!r}")
    _print_skipped(record.skipped)
    with redirect_stdout(sys.stderr):
        print_files({"record": directory / ADAPTIVE_NAME})
        print_next(f"mars-export card {shlex.quote(str(directory))}")


def print_utility(directory: Path, utility: Utility) -> None:
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
    with redirect_stdout(sys.stderr):
        print_files({"record": directory / UTILITY_NAME})
        print_next(f"mars-export card {shlex.quote(str(directory))}")


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
