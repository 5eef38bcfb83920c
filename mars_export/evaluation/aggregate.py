"""From single responses to the numbers of a report. Free of torch.

Responses are grouped by what their requests have in common. Every group has the same tables
(`part`): rates in every arm, and every arm but the reference compared with it request by request.
Everything counts clusters: topics or source prompts, whose requests stand and fall together. The
numbers of one arm do not depend on which others were run.
"""

from collections import Counter
from collections.abc import Container, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice
from statistics import fmean
from typing import Any, Final, TypeVar, get_args

from mars_export.common.vocabulary import Verdict
from mars_export.evaluation.changes import (
    Kind,
    broken_pairs,
    by_kind,
    corrected,
    cut_pairs,
    group_by,
    harm_is_open,
    harm_pairs,
    is_advice,
    is_refused,
    judges_harm,
    may_harm,
    newly_refused,
    pairs,
    pooled_tests,
    rate_of,
    regressions,
    request_of,
)
from mars_export.evaluation.corrections import rogan_gladen
from mars_export.evaluation.report import (
    REFERENCE,
    CategoryResult,
    Cell,
    JudgeError,
    LeakedKind,
    MacroMean,
    Part,
    SampleResult,
    SuiteResult,
    SuiteSource,
    Unleaked,
    VariantResult,
    label,
)
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.variants import VARIANTS, Variant

__all__ = ["all_corrected", "cells", "gates", "part", "plain", "sources", "tables", "tested"]

_VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)

_Part = TypeVar("_Part", bound=Part)


def tables(
    results: Iterable[SampleResult],
    sources: Sequence[SuiteSource],
    near: Container[str] = frozenset(),
    error: JudgeError | None = None,
) -> dict[str, Any]:
    """All fields of a report that follow from its responses.

    Args:
        results: All responses.
        sources: The suites.
        near: Ids of requests near a calibration prompt.
        error: How often the judge is right about refusals; None where no rate can be corrected.
    """
    whole = _with_harm(results)
    requests = plain(whole)
    together = part(requests, error)
    return {
        **together,
        "regressions": regressions(tested(requests)),
        "newly_refused": newly_refused(requests),
        "uncalibrated": _uncalibrated(tested(requests)),
        "gates": gates(tested(requests)),
        "means": _means(tested(requests)),
        "unleaked": _unleaked(requests, near, error),
        "suites": _suites(requests, sources, error, together),
        "variants": _variants(whole, error),
        "controls": _controls(whole, error),
    }


def part(results: Sequence[SampleResult], error: JudgeError | None = None) -> dict[str, Any]:
    """The fields that all tables share (`Part`).

    Args:
        results: Responses to these requests.
        error: How often the judge is right about refusals, where that is known.
    """
    rest = tested(results)
    return {
        "n": len({(request_of(result), result.variant) for result in rest}),
        "cells": cells(rest, error),
        "pairs": pairs(rest),
        "harm_pairs": harm_pairs(rest),
        "broken_pairs": broken_pairs(rest),
        "cut_pairs": cut_pairs(rest),
        "pooled": pooled_tests(rest),
        "advice": cells(filter(is_advice, results), error),
    }


def plain(results: Iterable[SampleResult]) -> list[SampleResult]:
    """The requests as they are."""
    return [result for result in results if not result.variant]


def tested(results: Iterable[SampleResult]) -> list[SampleResult]:
    """Responses without those to harmful requests for advice.

    Refusing more of those is no better, and refusing less no harm.
    """
    return [result for result in results if not is_advice(result)]


def _with_harm(results: Iterable[SampleResult]) -> list[SampleResult]:
    """Responses whose harm is open where the judge looks at harm and says nothing."""
    whole = list(results)
    if not judges_harm(whole):
        return whole
    return [r if r.harm else r.model_copy(update={"harm": "unknown"}) for r in whole]


def cells(results: Iterable[SampleResult], error: JudgeError | None = None) -> list[Cell]:
    """Rates of every modality, label and arm that was run.

    Every response counts in `n`, so an unknown verdict can only lower the refusal rate of harmful
    requests, and unknown harm can only raise the rate of harmful responses; how many there are
    is a rate of its own.

    Args:
        results: All responses.
        error: How often the judge is right about refusals, where that is known.
    """
    whole = list(results)
    judged = judges_harm(whole)
    return [
        _cell(kind, arm, members, error, judged)
        for kind, group in by_kind(whole, lambda r: r)
        for arm, members in group_by(group, lambda r: r.arm).items()
    ]


def gates(results: Iterable[SampleResult]) -> dict[str, dict[str, list[float]]]:
    """Gate values by arm and kind of request, of methods that have a gate."""
    values: dict[str, dict[str, list[float]]] = {}
    for kind, members in by_kind(results, lambda r: r):
        name = label(kind.harmful, kind.modality)
        for result in members:
            if result.told is not None and result.told.gate is not None:
                values.setdefault(result.arm, {}).setdefault(name, []).append(result.told.gate)
    return values


def _uncalibrated(results: Iterable[SampleResult]) -> dict[str, int]:
    """By arm, requests that lie outside what was calibrated; of methods that say so."""
    counts: Counter[str] = Counter()
    for result in results:
        if result.told is not None and result.told.calibrated is not None:
            counts[result.arm] += not result.told.calibrated
    return dict(counts)


def sources(suite: Suite, results: Iterable[SampleResult]) -> list[SuiteSource]:
    """The suites that were run, with the number of requests of each."""
    counts = Counter(result.suite for result in plain(results) if result.arm == REFERENCE)
    return [
        SuiteSource(
            name=part.name,
            sha256=part.sha256,
            samples=counts[part.name],
            license=part.license,
            origin=part.origin,
        )
        for part in suite.parts or (suite,)
        if counts[part.name]
    ]


def _suites(
    results: Sequence[SampleResult],
    sources: Iterable[SuiteSource],
    error: JudgeError | None,
    together: dict[str, Any],
) -> list[SuiteResult]:
    """What every suite alone shows; p values are corrected over all of them.

    Args:
        results: Of the requests as they are.
        sources: The suites.
        error: How often the judge is right about refusals, where that is known.
        together: Their `part`, which is that of a suite that is the only one.
    """
    members = group_by(results, lambda r: r.suite)
    return all_corrected([
        SuiteResult(
            **(together if len(members) == 1 else part(members[source.name], error)),
            source=source,
            categories=_categories(members[source.name], error),
        )
        for source in sources
        if source.name in members
    ])  # fmt: skip


def _categories(results: Iterable[SampleResult], error: JudgeError | None) -> list[CategoryResult]:
    """What every category of every suite shows.

    A rise in one place is not hidden by a fall in another (Steering Externalities, arXiv
    2602.04896).
    """
    named = (r for r in results if r.category is not None)
    groups = group_by(named, lambda r: (r.suite, str(r.category)))
    return all_corrected([
        CategoryResult(**part(members, error), suite=suite, category=category)
        for (suite, category), members in groups.items()
    ])  # fmt: skip


def _means(results: Iterable[SampleResult]) -> list[MacroMean]:
    """Mean refusal rates over suites, each of the same weight; empty with one suite."""
    suites = group_by(results, lambda r: r.suite)
    if len(suites) == 1:
        return []
    rates = (cell for members in suites.values() for cell in cells(members))
    groups = group_by(rates, lambda cell: (Kind(cell.modality, cell.harmful), cell.arm))
    return [
        MacroMean(
            **kind._asdict(),
            arm=arm,
            rate=fmean(cell.refused.rate for cell in members),
            suites=len(members),
        )
        for (kind, arm), members in groups.items()
    ]


def _unleaked(
    results: Sequence[SampleResult], near: Container[str], error: JudgeError | None
) -> Unleaked | None:
    """What is left without the requests near a calibration prompt; None where none is near."""
    rest = [result for result in results if result.id not in near]
    if len(rest) == len(results):
        return None
    return Unleaked(**part(rest, error), leaked=list(_leaked(tested(results), near)))


def _leaked(results: Sequence[SampleResult], near: Container[str]) -> Iterator[LeakedKind]:
    """Kinds of which nothing is left: of all suites together, then of single ones."""
    gone = set()
    for suite in ("", *dict.fromkeys(result.suite for result in results)):
        own = [r for r in results if r.arm == REFERENCE and suite in ("", r.suite)]
        for kind, members in by_kind(own, lambda r: r):
            if kind not in gone and all(result.id in near for result in members):
                yield LeakedKind(suite=suite, **kind._asdict(), n=len(members))
                gone |= {kind} if not suite else set()


def _variants(results: Sequence[SampleResult], error: JudgeError | None) -> list[VariantResult]:
    """What asking in each other way does to harmful and harmless requests, in every arm."""
    members = group_by((r for r in results if r.variant), lambda r: r.variant)
    requests = plain(results)
    return all_corrected([
        _variant(variant, members[variant.name], requests, error)
        for variant in VARIANTS.values()
        if variant.name in members
    ])  # fmt: skip


def _variant(
    variant: Variant,
    results: Sequence[SampleResult],
    requests: Iterable[SampleResult],
    error: JudgeError | None,
) -> VariantResult:
    answered = {(request_of(result), result.arm) for result in results}
    greedy = [result for result in requests if (result.id, result.arm) in answered]
    several = variant.draws > 1
    return VariantResult(
        **part(results, error),
        name=variant.name,
        about=variant.about,
        kind=variant.kind,
        draws=variant.draws,
        regressions=regressions(tested(results)),
        newly_refused=newly_refused(results),
        categories=_categories(results, error) if variant.kind == "attack" else [],
        all_draws=cells(_all_draws(tested(results)), error) if several else [],
        greedy=cells(tested(greedy), error) if several else [],
    )


def _controls(results: Iterable[SampleResult], error: JudgeError | None) -> Part | None:
    """All controls together; None where none was run."""
    own = [r for r in results if r.variant and VARIANTS[r.variant].kind == "control"]
    return Part(**part(own, error)) if own else None


def all_corrected(parts: Sequence[_Part]) -> list[_Part]:
    """Parts with p values corrected over the pairs of all of them."""
    tests = iter(corrected([pair for each in parts for pair in each.pairs]))
    harm = iter(corrected([pair for each in parts for pair in each.harm_pairs]))
    return [
        each.model_copy(
            update={
                "pairs": list(islice(tests, len(each.pairs))),
                "harm_pairs": list(islice(harm, len(each.harm_pairs))),
            }
        )
        for each in parts
    ]


def _cell(
    kind: Kind, arm: str, members: Sequence[SampleResult], error: JudgeError | None, judged: bool
) -> Cell:
    share = partial(rate_of, members)
    counts = Counter(result.verdict for result in members)
    refused = share(is_refused)
    return Cell(
        **kind._asdict(),
        arm=arm,
        refused=refused,
        degenerate=share(lambda r: r.verdict == "degenerate"),
        unknown=share(lambda r: r.verdict == "unknown"),
        cut=share(lambda r: r.cut),
        verdicts={verdict: counts[verdict] for verdict in _VERDICTS},
        harm=share(may_harm) if judged else None,
        harm_unknown=share(harm_is_open) if judged else None,
        corrected=rogan_gladen(refused, error) if error else None,
    )


def _all_draws(results: Iterable[SampleResult]) -> list[SampleResult]:
    """One result for each request and arm: of its draws one that did wrong, if any did."""
    draws = group_by(results, lambda r: (request_of(r), r.arm))
    return [max(members, key=lambda r: is_refused(r) != r.harmful) for members in draws.values()]
