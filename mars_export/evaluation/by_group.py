"""What lies below the pooled numbers: suites, categories, controls, attacks. Free of torch."""

from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import Final

from mars_export.common.vocabulary import Modality
from mars_export.evaluation.aggregate import (
    Kind,
    by_kind,
    cells,
    corrected,
    flips,
    group_by,
    is_refused,
    pairs,
    regressions,
)
from mars_export.evaluation.attacks import ATTACKS, CONTROLS, Variant
from mars_export.evaluation.report import (
    REFERENCE,
    AttackResult,
    CategoryCount,
    Comparison,
    Externalities,
    Externality,
    JudgeError,
    SampleResult,
    SuiteResult,
    SuiteSource,
)
from mars_export.evaluation.suite import Suite

__all__ = [
    "attack_regressions",
    "attacks",
    "controls",
    "externalities",
    "plain",
    "sources",
    "suites",
]

PLAIN: Final = "plain"
"""Name of the request as it is, in comparisons with attacks."""

_TEXT: Final[Modality] = "text"
"""The same in comparisons of controls, which are all made from text."""


def plain(results: Iterable[SampleResult]) -> list[SampleResult]:
    """The requests as they are."""
    return [result for result in results if not result.variant]


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


def suites(
    parts: Sequence[SuiteSource],
    results: Iterable[SampleResult],
    error: JudgeError | None = None,
) -> list[SuiteResult]:
    """Cells, pairs and categories of every suite; p values are corrected over all of them.

    Args:
        parts: The suites.
        results: All responses.
        error: How often the judge is right about refusals, where that is known.
    """
    members = group_by(plain(results), lambda r: r.suite)
    tests = corrected([pairs(members[source.name]) for source in parts])
    return [
        SuiteResult(
            source=source,
            cells=cells(members[source.name], error),
            pairs=paired,
            categories=_categories(members[source.name]),
        )
        for source, paired in zip(parts, tests, strict=True)
    ]


def controls(results: Iterable[SampleResult]) -> list[Comparison]:
    """Every two ways of showing a text request, over the requests that were shown in both."""
    ways = group_by(results, lambda r: r.variant or r.modality)
    if not any(control.name in ways for control in CONTROLS):
        return []
    names = (_TEXT, *(control.name for control in CONTROLS))
    return [
        comparison
        for first, second in combinations([name for name in names if name in ways], 2)
        for comparison in _compared(first, second, ways[first], ways[second])
    ]


def attacks(results: Sequence[SampleResult]) -> list[AttackResult]:
    """What each attack does to harmful requests, in every arm."""
    tried = group_by((r for r in results if r.variant and r.harmful), lambda r: r.variant)
    made = [_attack(a, tried[a.name], plain(results)) for a in ATTACKS if a.name in tried]
    tests = corrected([attack.pairs for attack in made])
    return [
        attack.model_copy(update={"pairs": paired})
        for attack, paired in zip(made, tests, strict=True)
    ]


def externalities(results: Iterable[SampleResult]) -> dict[str, Externalities]:
    """Groups of harmful requests that an arm answers more often than the reference, by arm.

    A group is one suite, category, modality and attack, so that a rise in one place is not
    hidden by a fall in another (Steering Externalities, arXiv 2602.04896).
    """
    harmful = _worst(r for r in results if r.harmful)
    groups = group_by(harmful, lambda r: (r.suite, r.category, r.variant, r.modality))
    tests = [
        Externality(suite=suite, category=category, variant=variant, **pair.model_dump())
        for (suite, category, variant, _), members in groups.items()
        for pair in pairs(members)
    ]
    return {
        arm: Externalities(
            checked=count,
            raised=[t for t in tests if t.arm == arm and t.newly_answered > t.newly_refused],
        )
        for arm, count in Counter(test.arm for test in tests).items()
    }


def attack_regressions(attacks: Iterable[AttackResult]) -> dict[str, list[str]]:
    """The regressions of all attacks together, by arm."""
    lists: dict[str, list[str]] = {}
    for attack in attacks:
        for arm, ids in attack.regressions.items():
            lists.setdefault(arm, []).extend(ids)
    return lists


def _categories(results: Iterable[SampleResult]) -> list[CategoryCount]:
    named = (r for r in results if r.category is not None)
    groups = group_by(named, lambda r: (str(r.category), r.modality, r.harmful))
    return [_category(*key, members) for key, members in groups.items()]


def _category(
    category: str, modality: Modality, harmful: bool, members: Sequence[SampleResult]
) -> CategoryCount:
    arms, tests = group_by(members, lambda r: r.arm), pairs(members)
    return CategoryCount(
        category=category,
        modality=modality,
        harmful=harmful,
        n=len(arms[REFERENCE]),
        refused={arm: sum(map(is_refused, answers)) for arm, answers in arms.items()},
        newly_refused={pair.arm: pair.newly_refused for pair in tests},
        newly_answered={pair.arm: pair.newly_answered for pair in tests},
    )


def _attack(
    attack: Variant, tried: Sequence[SampleResult], as_they_are: Sequence[SampleResult]
) -> AttackResult:
    worst = _worst(tried)
    return AttackResult(
        attack=attack.name,
        about=attack.about,
        draws=attack.draws,
        cells=cells(worst),
        pairs=pairs(worst),
        against_plain=_compared(PLAIN, attack.name, as_they_are, worst),
        regressions=regressions(worst),
    )


def _worst(results: Iterable[SampleResult]) -> list[SampleResult]:
    """One result for each request, variant and arm: of several draws one that did not refuse."""
    draws = group_by(results, lambda r: (r.group or r.id, r.variant, r.arm))
    return [
        min(members, key=is_refused).model_copy(
            update={"id": f"{request}@{variant}" if variant else request}
        )
        for (request, variant, _), members in draws.items()
    ]


def _compared(
    first: str, second: str, one: Iterable[SampleResult], other: Iterable[SampleResult]
) -> list[Comparison]:
    """Two ways of asking, for each arm, modality of the plain request and label."""
    twins = {(r.group or r.id, r.arm): r for r in other}
    asked = [r for r in one if (r.group or r.id, r.arm) in twins]
    return [
        _comparison(first, second, arm, kind, [(r, twins[r.group or r.id, arm]) for r in members])
        for arm, group in group_by(asked, lambda r: r.arm).items()
        for kind, members in by_kind(group)
    ]


def _comparison(
    first: str,
    second: str,
    arm: str,
    kind: Kind,
    both: Sequence[tuple[SampleResult, SampleResult]],
) -> Comparison:
    table = flips(both, is_refused)
    return Comparison(
        first=first,
        second=second,
        arm=arm,
        modality=kind.modality if first == PLAIN else _TEXT,
        harmful=kind.harmful,
        refused_first=table.both + table.lost,
        refused_second=table.both + table.gained,
        only_first=table.lost,
        only_second=table.gained,
        **table.test,
    )
