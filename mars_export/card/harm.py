"""Harm that an evaluation shows, and harm that it does not rule out, in words.

Only the checkpoint itself is looked at (steering on against steering off). Nothing here is
corrected for the number of tests: a correction would hide harm.
"""

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, Literal

from mars_export.card.extent import extents
from mars_export.card.outcomes import EVENTS, outcome_of
from mars_export.card.text import (
    FEW,
    change,
    enumerated,
    harm_bound,
    harm_word,
    p_text,
    worst_end,
)
from mars_export.common.markdown import cell, code
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.changes import FEWEST, group_by
from mars_export.evaluation.report import (
    REFERENCE,
    STEERED,
    CategoryResult,
    KindTest,
    Outcome,
    Pair,
    PairedTest,
    Part,
    Report,
    label,
)

__all__ = ["HarmTests", "alarms", "comparisons", "gaps", "harm_tests", "worse"]

_NAMES: Final = {"plain": 6, "part": 2, "control": 1, "attack": 1}
"""Comparisons without a result that one line names."""
_SHORT: Final = 6
"""Variants with too few requests that one line names."""

_WORSE: Final[Mapping[Outcome, str]] = {
    "harm": "answered more harmfully",
    "broken": "answered emptily, in loops or unreadably more",
    "cut": "cut at the token limit more",
}
_WORDS: Final[Mapping[Outcome, str]] = {
    "refused": "", "harm": " harmful answers", "broken": " broken answers", "cut": " cut answers",
}  # fmt: skip

_Sort = Literal["plain", "part", "control", "attack"]


@dataclass(frozen=True)
class HarmTests:
    """Comparisons of one sort, by what they say about harm; each is tested alone.

    All but the first are numbers, with the places where harm may be largest.
    """

    subject: str
    """What was compared, for example `plain requests`."""
    shown: str
    unsure: str
    """Not ruled out, though there are topics enough to do so if nothing changed."""
    few: str
    """Not ruled out, or not to be shown, for lack of topics."""
    ruled_out: str


@dataclass(frozen=True)
class _Place:
    """Some requests that were compared."""

    sort: _Sort
    name: str
    """Short; empty for the requests as they are."""
    words: str
    """What follows the kind of request in a sentence."""
    part: Part

    @property
    def tests(self) -> list[PairedTest]:
        """Of the checkpoint; over all modalities only where there are several."""
        part = self.part
        kinds: Iterable[PairedTest] = chain(
            part.pairs, part.harm_pairs, part.broken_pairs, part.cut_pairs
        )
        own = [test for test in kinds if test.arm == STEERED]
        single = [(outcome_of(test), test.harmful) for test in own]
        several = (t for t in part.pooled if single.count((t.outcome, t.harmful)) > 1)
        return [*own, *(test for test in several if test.arm == STEERED)]

    @property
    def shown(self) -> list[PairedTest]:
        """Those that show harm; one over all modalities only where it is the only one."""
        shown = [test for test in self.tests if test.harm == "shown"]
        single = {(outcome_of(t), t.harmful) for t in shown if isinstance(t, KindTest)}
        return [
            test
            for test in shown
            if isinstance(test, KindTest) or (outcome_of(test), test.harmful) not in single
        ]


def alarms(report: Report, modalities: Collection[Modality]) -> list[str]:
    """Everything in which the checkpoint is shown to do worse, the greatest change first.

    Categories come after all else, and then what was not looked at, or not enough. Each is a
    sentence of Markdown.

    Args:
        report: An evaluation.
        modalities: What the checkpoint takes.
    """
    return [*worse(report), *gaps(report, modalities)]


def worse(report: Report) -> list[str]:
    """Everything in which the checkpoint is shown to do worse, categories last."""
    shown = [(place, test) for place in _places(report) for test in place.shown]
    shown.sort(key=lambda item: (_is_category(item[0]), -abs(item[1].difference)))
    return list(dict.fromkeys(_worse(test, place) for place, test in shown))


def harm_tests(report: Report) -> list[HarmTests]:
    """What is ruled out and what is not: of the requests as they are, in controls, in attacks."""
    places = list(_places(report))
    subjects = {
        "plain": "plain requests",
        "part": _numbered(places, "part", "suite or category", "suites and categories"),
        "control": _numbered(places, "control", "control", "controls"),
        "attack": _numbered(places, "attack", "attack", "attacks"),
    }
    compared = {
        sort: [(place.name, test) for place in places if place.sort == sort for test in place.tests]
        for sort in subjects
    }
    return [
        _tests(subject, compared[sort], _NAMES[sort])
        for sort, subject in subjects.items()
        if compared[sort]
    ]


def comparisons(report: Report) -> int:
    """How many tests of harm of the checkpoint the report holds."""
    return sum(len(place.tests) for place in _places(report))


def _places(report: Report) -> Iterator[_Place]:
    """All that was compared."""
    yield _Place("plain", "", "", report)
    for suite in report.suites:
        name = code(suite.source.name)
        if len(report.suites) > 1:
            yield _Place("part", suite.source.name, f", {name}", suite)
        yield from _categories(suite.categories, f", {name}")
    if report.unleaked is not None:
        where = ", those near a calibration prompt left out"
        yield _Place("part", "without leaks", where, report.unleaked)
    for variant in report.variants:
        where = f", {code(variant.name)} ({variant.about})"
        yield _Place(variant.kind, variant.name, where, variant)
        yield from _categories(variant.categories, f", {code(variant.name)}")
    if report.controls is not None and sum(v.kind == "control" for v in report.variants) > 1:
        yield _Place("control", "all", ", all controls together", report.controls)


def _categories(categories: Iterable[CategoryResult], where: str) -> Iterator[_Place]:
    for part in categories:
        yield _Place("part", part.category, f"{where}, {cell(part.category)}", part)


def _is_category(place: _Place) -> bool:
    return isinstance(place.part, CategoryResult)


def _numbered(places: Iterable[_Place], sort: _Sort, one: str, many: str) -> str:
    number = sum(place.sort == sort and place.name != "all" for place in places)
    return f"{number} {one if number == 1 else many}"


def _worse(test: PairedTest, place: _Place) -> str:
    outcome = outcome_of(test)
    what = _WORSE.get(outcome, f"refused {'less' if test.harmful else 'more'}")
    return (
        f"**{_kind(test).capitalize()} requests {what}**{place.words}: "
        f"{_counts(test, place.part)}, {change(test, round(test.difference * test.n))}, "
        f"p {p_text(test.p_harm)}."
    )


def _counts(test: PairedTest, part: Part) -> str:
    """Answers that have what is compared, of how many, steering off and on."""
    return " → ".join(_count(test, arm, part) for arm in (REFERENCE, STEERED))


def _count(test: PairedTest, arm: str, part: Part) -> str:
    cells = [
        c
        for c in part.cells
        if c.arm == arm
        and c.harmful == test.harmful
        and (not isinstance(test, KindTest) or c.modality == test.modality)
    ]
    count = EVENTS[outcome_of(test)]
    return f"{sum(count(c) or 0 for c in cells)}/{sum(c.refused.n for c in cells)}"


def _kind(test: PairedTest) -> str:
    if isinstance(test, KindTest):
        return label(test.harmful, test.modality)
    return "harmful" if test.harmful else "harmless"


def gaps(report: Report, modalities: Collection[Modality]) -> Iterator[str]:
    """Controls that were not run, and variants on few of the requests, in Markdown."""
    controls, attacks = (extents(report, modalities, kind) for kind in ("control", "attack"))
    absent = [extent.variant for extent in controls if not extent.run]
    if len(absent) == len(controls):
        yield (
            "**Controls were not run**, so nothing is known of harmless requests in later turns, "
            "under a system prompt, with several pictures or written in a picture."
        )
    elif absent:
        names = [f"{code(v.name)} ({v.about}{_reason(report, v.name)})" for v in absent]
        yield f"**Controls that were not run**: {', '.join(names)}."
    few = [
        f"{code(extent.variant.name)} {n} of {due} {label(*group)}"
        for extent in (*controls, *attacks)
        if extent.run
        for group, n, due in extent.short
    ]
    if few:
        listed = enumerated(few, _SHORT)
        yield f"**Controls and attacks on too few requests** to show harm: {listed}."
    few = [
        f"{f'{code(place.name)} ' if place.name else ''}{_kind(test)} in {test.clusters} "
        f"({_counts(test, place.part)})"
        for place in _places(report)
        if place.sort != "part"
        for test in place.tests
        if test.clusters < FEWEST and isinstance(test, Pair)
    ]
    if few:
        yield f"**Too few topics to show harm**: {enumerated(few, _SHORT)}."


def _reason(report: Report, name: str) -> str:
    return f": {cell(report.skipped[name])}" if name in report.skipped else ""


def _tests(subject: str, compared: Sequence[tuple[str, PairedTest]], most: int) -> HarmTests:
    groups = group_by(compared, lambda item: "" if item[1].harm == "shown" else harm_word(item[1]))
    numbers = {word: len(members) for word, members in groups.items()}
    few, surely = [], [str(numbers.get("ruled out", 0))]
    if unsure := groups.get("not shown"):
        few.append(f"{len(unsure)}: at worst {_bounds(unsure)[0]}")
    if FEW in groups:
        few.append(f"{numbers[FEW]} that could not show it either")
    if harmless := numbers.get("nothing to lose"):
        surely.append(f"nothing to lose in {harmless}")
    unsure = groups.get("not ruled out", [])
    return HarmTests(
        subject,
        shown=f"**{numbers['']}**" if "" in groups else "0",
        unsure=f"**{len(unsure)}**: {enumerated(_bounds(unsure), most)}" if unsure else "0",
        few="; ".join(few) or "0",
        ruled_out="; ".join(surely),
    )


def _bounds(compared: Iterable[tuple[str, PairedTest]]) -> list[str]:
    """Comparisons with the end of their intervals, the worst first."""
    ordered = sorted(compared, key=lambda item: -worst_end(item[1]))
    return [
        f"{_kind(test)}{_WORDS[outcome_of(test)]}{f' {code(name)}' if name else ''} "
        f"(up to {harm_bound(test)})"
        for name, test in ordered
    ]
