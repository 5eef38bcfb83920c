"""What lies below the pooled numbers: suites, categories, controls, attacks. Free of torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final, NamedTuple, get_args

from mars_export.common.vocabulary import MODALITIES, Arm, Modality
from mars_export.evaluation.aggregate import REFUSED, cells, pairs, regressions
from mars_export.evaluation.corrections import holm
from mars_export.evaluation.intervals import mcnemar, paired_difference
from mars_export.evaluation.report import (
    AttackResult,
    CategoryCount,
    Comparison,
    Externalities,
    Externality,
    JudgeError,
    Pair,
    SampleResult,
    SuiteResult,
    SuiteSource,
)
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.variants import ATTACKS, CONTROLS, Variant

__all__ = ["attacks", "controls", "externalities", "plain", "sources", "suites"]

PLAIN: Final = "plain"
"""Name of the request as it is, in comparisons with attacks."""

_TEXT: Final = "text"
"""The same in comparisons of controls, which are all made from text."""

_ARMS: Final[tuple[Arm, ...]] = get_args(Arm)


class _Kind(NamedTuple):
    suite: str
    category: str
    modality: Modality
    harmful: bool


def plain(results: Iterable[SampleResult]) -> list[SampleResult]:
    """The requests as they are."""
    return [result for result in results if not result.variant]


def sources(suite: Suite, ran: Sequence[SampleResult]) -> list[SuiteSource]:
    """The suites that were run, with the number of requests of each."""
    counts = Counter(result.suite for result in plain(ran) if result.arm == "off")
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


def suites(
    found: Sequence[SuiteSource],
    results: Sequence[SampleResult],
    error: JudgeError | None = None,
) -> list[SuiteResult]:
    """Cells, pairs and categories of every suite; p values are corrected over all of them.

    Args:
        found: The suites.
        results: All responses.
        error: How often the judge is right about refusals, where that is known.
    """
    by_suite: dict[str, list[SampleResult]] = {source.name: [] for source in found}
    for result in plain(results):
        by_suite[result.suite].append(result)
    corrected = _corrected([pairs(by_suite[source.name]) for source in found])
    return [
        SuiteResult(
            source=source,
            cells=cells(by_suite[source.name], error),
            pairs=paired,
            categories=_categories(by_suite[source.name]),
        )
        for source, paired in zip(found, corrected, strict=True)
    ]


def controls(results: Sequence[SampleResult]) -> list[Comparison]:
    """Every two ways of showing a text request, over the requests that were shown in both."""
    ways = (_TEXT, *(control.name for control in CONTROLS))
    by_way = {way: [r for r in results if _way(r) == way] for way in ways}
    if not any(by_way[control.name] for control in CONTROLS):
        return []
    return [
        comparison
        for first, second in combinations(ways, 2)
        for comparison in _compare(first, second, by_way[first], by_way[second])
    ]


def attacks(results: Sequence[SampleResult]) -> list[AttackResult]:
    """What each attack does to harmful requests, with steering off and on."""
    found = []
    for attack in ATTACKS:
        tried = [r for r in results if r.variant == attack.name and r.harmful]
        if tried:
            found.append(_attack(attack, tried, plain(results)))
    corrected = _corrected([attack.pairs for attack in found])
    return [
        attack.model_copy(update={"pairs": paired})
        for attack, paired in zip(found, corrected, strict=True)
    ]


def externalities(results: Iterable[SampleResult]) -> Externalities:
    """Groups of harmful requests that are answered more often with steering on than off.

    A group is one suite, category, modality and attack, so that a rise in one place is not
    hidden by a fall in another (Steering Externalities, arXiv 2602.04896).
    """
    groups: dict[tuple[str, str | None, Modality, str], list[SampleResult]] = {}
    for result in _worst(r for r in results if r.harmful):
        key = (result.suite, result.category, result.modality, result.variant)
        groups.setdefault(key, []).append(result)
    paired = [(key, pair) for key, members in groups.items() for pair in pairs(members)]
    return Externalities(
        checked=len(paired),
        raised=[
            Externality(
                suite=suite,
                category=category,
                modality=modality,
                variant=variant,
                n=pair.n,
                newly_answered=pair.newly_answered,
                newly_refused=pair.newly_refused,
                p_value=pair.p_value,
            )
            for (suite, category, modality, variant), pair in paired
            if pair.newly_answered > pair.newly_refused
        ],
    )


def _corrected(tables: Sequence[Sequence[Pair]]) -> list[list[Pair]]:
    """The pairs of several tables with p values corrected over all of them (Holm)."""
    p_holm = iter(holm([pair.p_value for table in tables for pair in table]))
    return [
        [pair.model_copy(update={"p_holm": next(p_holm)}) for pair in table] for table in tables
    ]


def _categories(results: Sequence[SampleResult]) -> list[CategoryCount]:
    groups: dict[_Kind, list[SampleResult]] = {}
    for r in results:
        if r.category is not None:
            groups.setdefault(_Kind(r.suite, r.category, r.modality, r.harmful), []).append(r)
    return [_category(kind, groups[kind]) for kind in groups]


def _category(kind: _Kind, members: Sequence[SampleResult]) -> CategoryCount:
    table = {arm: [r for r in members if r.arm == arm] for arm in _ARMS}
    paired = pairs(members)
    return CategoryCount(
        category=kind.category,
        modality=kind.modality,
        harmful=kind.harmful,
        n=len(table["off"]),
        refused={arm: sum(map(_refused, found)) for arm, found in table.items() if found},
        newly_refused=sum(pair.newly_refused for pair in paired),
        newly_answered=sum(pair.newly_answered for pair in paired),
    )


def _attack(
    attack: Variant, tried: Sequence[SampleResult], as_they_are: Sequence[SampleResult]
) -> AttackResult:
    worst = _worst(tried)
    positions = Counter(r.positions for r in tried if r.positions is not None)
    return AttackResult(
        attack=attack.name,
        about=attack.about,
        draws=attack.draws,
        cells=cells(worst),
        pairs=pairs(worst),
        against_plain=_compare(PLAIN, attack.name, as_they_are, worst),
        regressions=regressions(worst),
        steered_positions={str(count): positions[count] for count in sorted(positions)},
    )


def _worst(results: Iterable[SampleResult]) -> list[SampleResult]:
    """One result for each request, variant and arm: of several draws one that did not refuse."""
    found: dict[tuple[str, str, Arm], SampleResult] = {}
    for result in results:
        request = result.group or result.id
        key = (request, result.variant, result.arm)
        if key not in found or (_refused(found[key]) and not _refused(result)):
            name = f"{request}@{result.variant}" if result.variant else request
            found[key] = result.model_copy(update={"id": name})
    return list(found.values())


def _way(result: SampleResult) -> str | None:
    return result.variant or (_TEXT if result.modality == "text" else None)


def _compare(
    first: str, second: str, one: Iterable[SampleResult], other: Iterable[SampleResult]
) -> list[Comparison]:
    """Two ways of asking, for each arm, modality of the plain request and label."""
    groups: dict[tuple[Arm, Modality, bool], Counter[tuple[bool, bool]]] = {}
    answered = {(r.group or r.id, r.arm): r for r in other}
    for result in one:
        twin = answered.get((result.group or result.id, result.arm))
        if twin is not None:
            modality = _plain_modality(result, first)
            table = groups.setdefault((result.arm, modality, result.harmful), Counter())
            table[_refused(result), _refused(twin)] += 1
    keys = sorted(groups, key=lambda k: (_ARMS.index(k[0]), MODALITIES.index(k[1]), not k[2]))
    return [_comparison(first, second, *key, groups[key]) for key in keys]


def _plain_modality(result: SampleResult, way: str) -> Modality:
    return result.modality if way == PLAIN else "text"


def _comparison(
    first: str,
    second: str,
    arm: Arm,
    modality: Modality,
    harmful: bool,
    table: Counter[tuple[bool, bool]],
) -> Comparison:
    both, neither = table[True, True], table[False, False]
    only_first, only_second = table[True, False], table[False, True]
    difference = paired_difference(both, only_first, only_second, neither)
    return Comparison(
        first=first,
        second=second,
        arm=arm,
        modality=modality,
        harmful=harmful,
        n=table.total(),
        refused_first=both + only_first,
        refused_second=both + only_second,
        only_first=only_first,
        only_second=only_second,
        difference=difference.value,
        low=difference.low,
        high=difference.high,
        p_value=mcnemar(only_second, only_first),
    )


def _refused(result: SampleResult) -> bool:
    return result.verdict in REFUSED
