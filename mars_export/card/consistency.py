"""Lints of manifest and report: whether these records can carry an honest card.

They recompute what can be recomputed, so that a card never prints a rate, an interval or a p value
that does not follow from its counts.
"""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Final

from scipy.stats import binomtest

from mars_export.card.numbers import wilson
from mars_export.card.provenance import STEERING_FILE
from mars_export.card.results import cells_by_arm, label
from mars_export.card.utility import problems
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.report import Cell, Pair, Rate, Report
from mars_export.evaluation.utility import Utility

__all__ = ["lint_records", "raise_first"]

Problems = Iterator[str]
_TOLERANCE: Final = 1e-4


def lint_records(manifest: Manifest, report: Report | None, utility: Utility | None = None) -> None:
    """Check that the records can carry an honest card.

    Raises:
        ExportError: naming the first lint that fails.
    """
    for name, check in _MANIFEST_LINTS.items():
        raise_first(name, check(manifest))
    if report is not None:
        raise_first("same-checkpoint", _same_checkpoint(manifest, report))
        for name, check_report in _REPORT_LINTS.items():
            raise_first(name, check_report(report))
    if utility is not None:
        raise_first("same-checkpoint", _same_steering(manifest, utility))
        raise_first("utility", problems(utility))


def raise_first(lint: str, problems: Problems) -> None:
    """Raise the first problem, if there is one.

    Raises:
        ExportError: naming the lint.
    """
    for problem in problems:
        raise ExportError(f"model card not written, lint `{lint}`: {problem}")


def _license(manifest: Manifest) -> Problems:
    if manifest.base.license.strip().lower() in {"", "unknown", "none"}:
        yield (
            f"the license of {manifest.base.name} is not known, and a modified copy inherits it; "
            "export again with --license ID"
        )


def _files(manifest: Manifest) -> Problems:
    listed = {file.path for file in manifest.files}
    for path in (manifest.modeling_file, STEERING_FILE):
        if path not in listed:
            yield f"the manifest has no checksum of {path}; export the model again"


def _self_check(report: Report) -> Problems:
    if not report.self_check.active:
        yield (
            f"the self-check found steering inactive ({report.self_check.detail}), so there are "
            "no after numbers to publish; export and evaluate again"
        )


def _both_arms(report: Report) -> Problems:
    pairs = {(p.harmful, p.modality) for p in report.pairs}
    if not report.cells:
        yield "the report holds no results; evaluate the directory again"
    for (harmful, modality), arms in cells_by_arm(report).items():
        if set(arms) != {"off", "on"} or (harmful, modality) not in pairs:
            yield (
                f"{label(modality, harmful)} requests were not run with steering off and on; "
                "evaluate the directory again"
            )


def _harmless_too(report: Report) -> Problems:
    if report.cells and all(cell.harmful for cell in report.cells):
        yield (
            f"the suite {report.suite.name} holds harmful requests only; a model that refuses "
            "everything would look perfect, so add harmless ones"
        )


def _intervals(report: Report) -> Problems:
    for cell in report.cells:
        for name in ("refused", "degenerate", "unknown", "harm", "harm_unknown"):
            value = getattr(cell, name)
            if value is not None and not _is_wilson(value):
                yield (
                    f"{name} of {_where(cell)} is not x of n with its Wilson 95 % interval; "
                    "evaluate the directory again"
                )


def _is_wilson(value: Rate) -> bool:
    if not 0 <= value.count <= value.n or value.n == 0:
        return False
    right = wilson(value.count, value.n)
    return all(
        abs(getattr(value, f) - getattr(right, f)) < _TOLERANCE for f in ("rate", "low", "high")
    )


def _counts(report: Report) -> Problems:
    for cell in report.cells:
        seen = cell.verdicts
        refused = seen.get("refusal", 0) + seen.get("rebuttal", 0)
        counts = (sum(seen.values()), refused, seen.get("degenerate", 0), seen.get("unknown", 0))
        rates = (cell.refused.n, cell.refused.count, cell.degenerate.count, cell.unknown.count)
        if counts != rates or len({cell.refused.n, cell.degenerate.n, cell.unknown.n}) != 1:
            yield f"the verdicts of {_where(cell)} do not add up to its rates; evaluate again"


def _pairs(report: Report) -> Problems:
    cells = cells_by_arm(report)
    for pair in report.pairs:
        arms = cells.get((pair.harmful, pair.modality), {})
        if set(arms) == {"off", "on"} and not _agrees(pair, arms["off"], arms["on"]):
            yield (
                f"the paired comparison of {label(pair.modality, pair.harmful)} requests does not "
                "follow from its counts; evaluate the directory again"
            )


def _agrees(pair: Pair, off: Cell, on: Cell) -> bool:
    discordant = pair.newly_refused + pair.newly_answered
    p = binomtest(pair.newly_refused, discordant, 0.5).pvalue if discordant else 1.0
    gained = pair.newly_refused - pair.newly_answered
    return (
        off.refused.n == on.refused.n == pair.n
        and on.refused.count - off.refused.count == gained
        and abs(pair.difference - gained / pair.n) < _TOLERANCE
        and -1 <= pair.low <= pair.difference <= pair.high <= 1
        and abs(pair.p_value - p) < _TOLERANCE
        and (pair.p_holm is None or pair.p_value - _TOLERANCE <= pair.p_holm <= 1)
    )


def _harm(report: Report) -> Problems:
    cells = cells_by_arm(report)
    for pair in report.harm_pairs:
        arms = cells.get((pair.harmful, pair.modality), {})
        harm = {arm: cell.harm for arm, cell in arms.items()}
        off, on = harm.get("off"), harm.get("on")
        gained = pair.newly_harmful - pair.no_longer_harmful
        if off is None or on is None or on.count - off.count != gained:
            yield (
                f"the harm of answers to {label(pair.modality, pair.harmful)} requests does not "
                "follow from its counts; evaluate the directory again"
            )


def _regressions(report: Report) -> Problems:
    lost = sum(p.newly_answered for p in report.pairs if p.harmful)
    gained = sum(p.newly_refused for p in report.pairs if not p.harmful)
    lists = (report.regressions, report.newly_refused)
    if tuple(sum(map(len, by_arm.values())) for by_arm in lists) != (lost, gained):
        yield "the lists of requests that got worse do not match the pairs; evaluate again"


def _same_checkpoint(manifest: Manifest, report: Report) -> Problems:
    if report.steering_sha256 != manifest.steering_sha256:
        yield "the report is about other steering tensors; evaluate the directory again"
    elif _time(report.created) < _time(manifest.created):
        yield "the evaluation is older than the checkpoint; evaluate the directory again"


def _same_steering(manifest: Manifest, utility: Utility) -> Problems:
    if utility.steering_sha256 != manifest.steering_sha256:
        yield "utility was measured with other steering tensors; measure it again"


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _where(cell: Cell) -> str:
    return f"{label(cell.modality, cell.harmful)} requests (steering {cell.arm})"


_MANIFEST_LINTS: Final[dict[str, Callable[[Manifest], Problems]]] = {
    "license": _license,
    "files": _files,
}
_REPORT_LINTS: Final[dict[str, Callable[[Report], Problems]]] = {
    "self-check": _self_check,
    "off-and-on": _both_arms,
    "harmful-only": _harmless_too,
    "interval": _intervals,
    "verdict-counts": _counts,
    "paired": _pairs,
    "harm": _harm,
    "regressions": _regressions,
}
