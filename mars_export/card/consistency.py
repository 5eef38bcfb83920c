"""Whether these records can carry an honest card.

The numbers of a report are counted again from its own cells, so that one that was altered, or
made by another program, cannot hide harm.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import chain
from typing import Final

from mars_export.card.arithmetic import ROUNDING, part_problems
from mars_export.card.extent import due
from mars_export.card.sums import correction_problems, sum_problems
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.adaptive.lint import contradictions as attack_contradictions
from mars_export.evaluation.adaptive.record import Adaptive
from mars_export.evaluation.corrections import rogan_gladen
from mars_export.evaluation.judges.quality import judge_error, kappa_of, no_correction
from mars_export.evaluation.report import (
    MARGIN,
    REFERENCE,
    STEERED,
    Agreement,
    Pair,
    Part,
    Report,
    label,
    undecided,
)
from mars_export.evaluation.suite import HARMFUL_ONLY
from mars_export.evaluation.utility import Utility
from mars_export.evaluation.variants import CONTROLS, VARIANTS

__all__ = ["check_records", "check_responses"]

_QUOTE_LENGTH: Final = 24
"""Characters; a shorter response may occur in a card's own words."""


def check_records(
    manifest: Manifest,
    report: Report | None,
    utility: Utility | None,
    adaptive: Adaptive | None = None,
    where: str = "",
) -> None:
    """Check that the records belong together and can be published.

    Args:
        manifest: Of the directory.
        report: Its evaluation, if there is one.
        utility: What steering costs, if that was measured.
        adaptive: How far attackers come, if that was measured.
        where: Path of a report that stands beside the one that the card leads with.

    Raises:
        ExportError: naming the first problem and what to do.
    """
    problems = _problems(manifest, report, utility, adaptive)
    if where:
        other = f"delete {where.rpartition('/')[0]} and run `mars-export seal`"
        problems = (f"{where}: {problem}, or {other}" for problem in problems)
    _raise_first(problems)


def check_responses(text: str, responses: Iterable[str]) -> None:
    """Check that a card quotes no response of the model.

    Raises:
        ExportError: if it does; the response itself is not repeated.
    """
    card = _one_line(text)
    if any(len(r) >= _QUOTE_LENGTH and r in card for r in map(_one_line, responses)):
        _raise_first(iter(["it would quote a response of the model; please report this"]))


def _problems(
    manifest: Manifest,
    report: Report | None,
    utility: Utility | None,
    adaptive: Adaptive | None,
) -> Iterator[str]:
    if manifest.base.license.strip().lower() in {"", "unknown", "none"}:
        yield (
            f"the license of {manifest.base.name} is not known, and a modified copy inherits it; "
            "export again with --license ID"
        )
    if report is not None:
        yield from _other_checkpoint(manifest, report)
        yield from _unusable(report)
        modalities = manifest.calibration.source.modalities
        ways = chain(_impossible(report, modalities), _hidden(report, modalities))
        for problem in chain(_other_ways(report), ways, _contradictions(report)):
            yield f"{problem}; evaluate the directory again"
    if utility is not None:
        yield from (f"{problem}; measure it again" for problem in _utility(manifest, utility))
    if adaptive is not None:
        problems = _attack_problems(manifest, report, adaptive)
        yield from (f"{problem}; attack the directory again" for problem in problems)


def _utility(manifest: Manifest, utility: Utility) -> Iterator[str]:
    if utility.steering_sha256 != manifest.steering_sha256:
        yield "utility was measured with other steering tensors"
    for task in utility.tasks:
        for m in task.metrics:
            low, high = (m.difference if end is None else end for end in (m.low, m.high))
            kept = None if m.low is None else m.low > -m.margin
            if abs(m.on - m.off - m.difference) > ROUNDING or not low <= m.difference <= high:
                yield f"utility: the change of {task.task} {m.name} is not {m.difference:g}"
            elif m.not_inferior != kept or m.margin <= 0:
                yield f"utility: a loss of {m.margin:g} of {task.task} {m.name} is misjudged"


def _attack_problems(
    manifest: Manifest, report: Report | None, adaptive: Adaptive
) -> Iterator[str]:
    if adaptive.steering_sha256 != manifest.steering_sha256:
        yield "the attacks were on other steering tensors"
    if _time(adaptive.created) < _time(manifest.created):
        yield "the attacks are older than the checkpoint"
    if report is not None:
        judges = {report.judge} | ({report.agreement.judge} if report.agreement else set())
        if adaptive.judge not in judges:
            yield (
                f"the attacks were judged by {adaptive.judge}, the evaluation by {report.judge}, "
                "and their verdicts do not compare"
            )
    yield from (f"attacks: {text}" for text in attack_contradictions(adaptive))


def _other_checkpoint(manifest: Manifest, report: Report) -> Iterator[str]:
    if report.steering_sha256 != manifest.steering_sha256:
        yield "the report is about other steering tensors; evaluate the directory again"
    elif any(
        arm.steered != (arm.name == STEERED) or arm.steering_sha256 != manifest.steering_sha256
        for arm in report.arms
        if arm.name in (REFERENCE, STEERED)
    ):
        yield "steering off and on are not of this checkpoint; evaluate the directory again"
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
        yield f"the suite {report.suite.name} {HARMFUL_ONLY}"


def _contradictions(report: Report) -> Iterator[str]:
    """What a report says that its own numbers deny."""
    if report.margin != MARGIN:
        yield f"harm was tested with a margin of {report.margin:g}, not {MARGIN:g} as announced"
    if report.no_headline is None and (reason := undecided(report.cells)):
        yield f"the report claims headline numbers. {reason.rstrip('.')}"
    if report.judge_error != judge_error(report.judge):
        yield f"the errors of the judge are not those of {report.judge}"
    if report.no_correction != no_correction(report.judge, report.judge_error, report.cells):
        yield "why no rate is corrected for the errors of the judge is not what they say"
    if report.agreement is not None:
        yield from _agreement_problems(report.agreement, report)
    if (report.unleaked is None) != (not report.near):
        yield "the requests near a calibration prompt are not those that were left out"
    for place, part, arms, draws in _parts(report):
        yield from (f"{place}: {problem}" for problem in part_problems(part, arms, draws))
        yield from (f"{place}: {problem}" for problem in _corrections(part, report))
    parts = [part for _, part, _, _ in _parts(report)]
    if len({cell.harm is None for part in parts for cell in (*part.cells, *part.advice)}) > 1:
        yield "harm is judged in some of the tables only"
    yield from sum_problems(report)
    yield from correction_problems(report)
    lists = [("", report.pairs, report.regressions, report.newly_refused)]
    lists += [(f"@{v.name}", v.pairs, v.regressions, v.newly_refused) for v in report.variants]
    for place, pairs, regressions, newly_refused in lists:
        yield from _ids(place, pairs, regressions, newly_refused)


def _agreement_problems(stated: Agreement, report: Report) -> Iterator[str]:
    """What is said of a second judge that its counts deny."""
    counts = stated.refused, stated.refused_second, stated.refused_both, stated.n
    cells = [*report.cells, *report.advice]
    cells += [cell for variant in report.variants for cell in (*variant.cells, *variant.advice)]
    refused, n = (sum(getattr(c.refused, name) for c in cells) for name in ("count", "n"))
    if stated.judge == report.judge:
        yield f"{stated.judge} is said to be its own second judge"
    try:
        kappa = kappa_of(*counts)
    except ValueError as error:
        yield f"the answers that both judges called refused: {error}"
        return
    if abs(stated.kappa - kappa) > ROUNDING:
        yield f"the kappa of both judges is {kappa:.3f}, not {stated.kappa:.3f}"
    elif stated.n > n or stated.refused > refused or stated.n - stated.refused > n - refused:
        yield f"both judges read {stated.n} answers, {stated.refused} refused, which are not here"


def _other_ways(report: Report) -> Iterator[str]:
    """Controls and attacks that are not what their names say."""
    names = [result.name for result in report.variants]
    for result in report.variants:
        way = VARIANTS.get(result.name)
        stated = result.kind, result.about, result.draws
        if way is None or stated != (way.kind, way.about, way.draws):
            yield f"{result.name} is no {result.kind} of this version, or another one"
        elif names.count(result.name) > 1:
            yield f"the {result.kind} {result.name} is there twice"


def _parts(report: Report) -> Iterator[tuple[str, Part, set[str], int | None]]:
    """Everything that has cells: what a message calls it, its arms, and answers to a request."""
    every, always = {arm.name for arm in report.arms}, {REFERENCE, STEERED}
    yield "all requests", report, every, 1
    for suite in report.suites:
        yield f"the suite {suite.source.name}", suite, every, 1
        for category in suite.categories:
            yield f"the category {category.category}", category, every, 1
    for v in report.variants:
        yield f"the {v.kind} {v.name}", v, always, VARIANTS[v.name].draws
        for category in v.categories:
            yield f"{v.name} of {category.category}", category, always, VARIANTS[v.name].draws
    if report.unleaked is not None:
        yield "the requests without leaks", report.unleaked, every, 1
    if report.controls is not None:
        yield "all controls", report.controls, always, None


def _corrections(part: Part, report: Report) -> Iterator[str]:
    """Rates that are not corrected for the errors of the judge as they should be: all or none."""
    error = None if report.no_correction else report.judge_error
    for cell in part.cells:
        if cell.corrected != (rogan_gladen(cell.refused, error) if error else None):
            name = f"{label(cell.harmful, cell.modality)} in the arm {cell.arm}"
            yield f"the rate of {name} is not corrected for the errors of the judge as all are"


def _ids(
    place: str,
    pairs: Sequence[Pair],
    regressions: Mapping[str, Sequence[str]],
    newly_refused: Mapping[str, Sequence[str]],
) -> Iterator[str]:
    for arm in {pair.arm for pair in pairs}:
        for harmful, lists in ((True, regressions), (False, newly_refused)):
            count = sum(
                p.newly_answered if harmful else p.newly_refused
                for p in pairs
                if p.arm == arm and p.harmful is harmful
            )
            if len(lists.get(arm, ())) != count:
                what = "regressions" if harmful else "new over-refusals"
                yield (
                    f"{len(lists.get(arm, ()))} {what}{place} are listed in the arm {arm}, "
                    f"but there are {count}"
                )


def _hidden(report: Report, modalities: Collection[Modality]) -> Iterator[str]:
    """Controls that are missing without a word, or that lack one label."""
    results = {variant.name: variant for variant in report.variants}
    controlled = any(control.name in results for control in CONTROLS)
    if not controlled:
        return
    for control in CONTROLS:
        of = control.of[:1]  # text wherever it matters: it fits all
        labels = {cell.harmful for cell in report.cells if not of or cell.modality in of}
        result = results.get(control.name)
        if result is None:
            possible = due(control, report.cells, modalities)
            if possible and control.name not in report.skipped:
                yield f"the control {control.name} is neither in the report nor said to be left out"
        elif not control.harmless and not {cell.harmful for cell in result.cells} >= labels:
            yield f"the control {control.name} lacks harmful or harmless requests"


def _impossible(report: Report, modalities: Collection[Modality]) -> Iterator[str]:
    """Controls and attacks on requests that are not among those as they are."""
    for result in report.variants:
        groups = due(VARIANTS[result.name], report.cells, modalities, limited=False)
        for cell in result.cells:
            name, n = label(cell.harmful, cell.modality), cell.refused.n // result.draws
            if (most := groups.get((cell.harmful, cell.modality), 0)) < n:
                what = f"the {result.kind} {result.name} was put to"
                yield f"{what} {n} {name} requests of {most}" if most else f"{what} {name} requests"


def _raise_first(problems: Iterator[str]) -> None:
    for problem in problems:
        raise ExportError(f"model card not written: {problem}")


def _one_line(text: str) -> str:
    return " ".join(text.split())


def _time(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
