"""Whether these records can carry an honest card."""

from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from typing import Final

from mars_export.card.results import by_group
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation.report import REFERENCE, STEERED, Report, label
from mars_export.evaluation.utility import Utility

__all__ = ["check_records", "check_responses"]

_QUOTE_LENGTH: Final = 24
"""Characters; a shorter response may occur in a card's own words."""


def check_records(manifest: Manifest, report: Report | None, utility: Utility | None) -> None:
    """Check that manifest, report and utility belong together and can be published.

    Raises:
        ExportError: naming the first problem and what to do.
    """
    _raise_first(_problems(manifest, report, utility))


def check_responses(text: str, responses: Iterable[str]) -> None:
    """Check that a card quotes no response of the model.

    Raises:
        ExportError: if it does; the response itself is not repeated.
    """
    card = _one_line(text)
    if any(len(r) >= _QUOTE_LENGTH and r in card for r in map(_one_line, responses)):
        _raise_first(iter(["it would quote a response of the model; please report this"]))


def _problems(manifest: Manifest, report: Report | None, utility: Utility | None) -> Iterator[str]:
    if manifest.base.license.strip().lower() in {"", "unknown", "none"}:
        yield (
            f"the license of {manifest.base.name} is not known, and a modified copy inherits it; "
            "export again with --license ID"
        )
    if report is not None:
        yield from _other_checkpoint(manifest, report)
        yield from _unusable(report)
    if utility is not None and utility.steering_sha256 != manifest.steering_sha256:
        yield "utility was measured with other steering tensors; measure it again"


def _other_checkpoint(manifest: Manifest, report: Report) -> Iterator[str]:
    if report.steering_sha256 != manifest.steering_sha256:
        yield "the report is about other steering tensors; evaluate the directory again"
    elif _time(report.created) < _time(manifest.created):
        yield "the evaluation is older than the checkpoint; evaluate the directory again"


def _unusable(report: Report) -> Iterator[str]:
    if not report.self_check.active:
        yield (
            f"the self-check found steering inactive ({report.self_check.detail}), so there are "
            "no results to publish; export and evaluate again"
        )
    names = [arm.name for arm in report.arms]
    if names[:1] != [REFERENCE] or STEERED not in names:
        yield "the report compares steering on with nothing; evaluate the directory again"
    if not report.cells:
        yield "the report holds no results; evaluate the directory again"
    elif all(cell.harmful for cell in report.cells):
        yield (
            f"the suite {report.suite.name} holds harmful requests only; a model that refuses "
            "everything would look perfect, so add harmless ones"
        )
    tests = {(p.harmful, p.modality, p.arm) for p in report.pairs}
    for group, cells in by_group(report.cells).items():
        for arm in report.arms:
            tested = arm.name == REFERENCE or (*group, arm.name) in tests
            if arm.name not in cells or not tested:
                yield (
                    f"{label(*group)} requests were not run in every arm ({arm.name} is missing); "
                    "evaluate the directory again"
                )


def _raise_first(problems: Iterator[str]) -> None:
    for problem in problems:
        raise ExportError(f"model card not written: {problem}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
