"""Whether the parts of a report add up to the whole: suites, categories, controls, draws, doses."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from statistics import fmean

from mars_export.card.arithmetic import ROUNDING, cell_problems, rate_problems
from mars_export.card.lines import by_group
from mars_export.card.outcomes import changes, outcome_of
from mars_export.evaluation.changes import corrected
from mars_export.evaluation.dose import FACTORS
from mars_export.evaluation.report import (
    REFERENCE,
    Cell,
    Dose,
    KindTest,
    Pair,
    PairedTest,
    Part,
    Report,
    Unleaked,
    VariantResult,
    label,
)

__all__ = ["correction_problems", "sum_problems"]

Counts = Counter[tuple[str, str, str]]
"""Answers or requests by their kind, the arm, and what is true of them."""


def sum_problems(report: Report) -> Iterator[str]:
    """Where the parts of a report do not add up to its whole, one clause each."""
    if not report.suites:
        yield "no suite is named"
    suites = _total(report.suites)
    yield from _other("all requests", _counts(report), suites, "the suites")
    yield from _numbers(report)
    for suite in report.suites:
        yield from _more(f"categories of {suite.source.name}", _total(suite.categories), suite)
    for variant in report.variants:
        yield from _more(f"categories of {variant.name}", _total(variant.categories), variant)
        yield from _draws(variant, report)
    if report.unleaked is not None:
        yield from _leaks(report.unleaked, report)
    controls = _total(variant for variant in report.variants if variant.kind == "control")
    together = _counts(report.controls) if report.controls else Counter()
    yield from _other("all controls", together, controls, "the controls")
    yield from _means(report)
    for dose in report.dose:
        yield from _doses(dose, report)


def correction_problems(report: Report) -> Iterator[str]:
    """P values that are not corrected for the number of tests, as those of benefits should be."""
    families: list[tuple[str, Sequence[Part]]] = [
        ("all requests", [report]),
        ("the suites", report.suites),
        ("controls and attacks", report.variants),
        *((f"categories of {suite.source.name}", suite.categories) for suite in report.suites),
        *((f"categories of {variant.name}", variant.categories) for variant in report.variants),
        ("all controls", [report.controls] if report.controls else []),
        ("the requests without leaks", [report.unleaked] if report.unleaked else []),
    ]
    for place, parts in families:
        for tests in _corrected_together(parts):
            for test, due in zip(tests, corrected(tests), strict=True):
                if test.p_holm is None or abs(test.p_holm - (due.p_holm or 0)) > ROUNDING:
                    yield f"{place}: a p value ({outcome_of(test)}, {test.arm}) is not Holm's"


def _corrected_together(parts: Sequence[Part]) -> Iterator[list[PairedTest]]:
    """Refusals and harm over all parts, broken and cut answers in each (`aggregate`)."""
    yield [pair for part in parts for pair in part.pairs]
    yield [pair for part in parts for pair in part.harm_pairs]
    for part in parts:
        yield [*part.broken_pairs]
        yield [*part.cut_pairs]


def _counts(part: Part) -> Counts:
    """All that adds up over parts of different requests."""
    counts = _answers(part.cells)
    counts.update(_answers(part.advice, " (advice)"))
    tests: list[KindTest] = [*part.pairs, *part.harm_pairs, *part.broken_pairs, *part.cut_pairs]
    for test in tests:
        kind, outcome = label(test.harmful, test.modality), outcome_of(test)
        gained, lost = changes(test)
        numbers = {"compared": test.n, "that gain it": gained, "that lose it": lost}
        if isinstance(test, Pair):
            numbers["at risk"] = test.at_risk
        for what, number in numbers.items():
            counts[kind, test.arm, f"requests {what} ({outcome})"] += number
    return counts


def _answers(cells: Iterable[Cell], sort: str = "") -> Counts:
    """Answers that have each property, and that have it not."""
    counts: Counts = Counter()
    for cell in cells:
        shares = {"cut": cell.cut, "harmful": cell.harm, "of open harm": cell.harm_unknown}
        numbers = {f"judged {verdict}": count for verdict, count in cell.verdicts.items()}
        for name, rate in shares.items():
            if rate is not None:
                numbers |= {name: rate.count, f"not {name}": rate.n - rate.count}
        for what, number in numbers.items():
            counts[label(cell.harmful, cell.modality) + sort, cell.arm, f"answers {what}"] += number
    return counts


def _total(parts: Iterable[Part]) -> Counts:
    total: Counts = Counter()
    for part in parts:
        total.update(_counts(part))
    return total


def _other(place: str, whole: Counts, parts: Counts, names: str) -> Iterator[str]:
    for kind, arm, what in sorted(whole.keys() | parts.keys()):
        stated, counted = whole[kind, arm, what], parts[kind, arm, what]
        if stated != counted:
            yield f"{place}: {stated} {kind} {what} in the arm {arm}, but {counted} in {names}"


def _more(place: str, some: Counts, whole: Part | Counts) -> Iterator[str]:
    """Some of the requests cannot have more of anything than all of them."""
    every = _counts(whole) if isinstance(whole, Part) else whole
    for (kind, arm, what), count in sorted(some.items()):
        if count > (most := every[kind, arm, what]):
            yield f"{place}: {count} {kind} {what} in the arm {arm}, but {most} in all"


def _numbers(report: Report) -> Iterator[str]:
    """How many requests each part says that it has."""
    parts: list[tuple[str, Part, int]] = [("all requests", report, 1)]
    parts += [(f"the suite {suite.source.name}", suite, 1) for suite in report.suites]
    parts += [(variant.name, variant, variant.draws) for variant in report.variants]
    for place, part, draws in parts:
        if part.n != (n := _asked(part.cells) // draws):
            yield f"{place}: {part.n} requests, but {n} were answered"
    for suite in report.suites:
        if suite.source.samples != (n := suite.n + _asked(suite.advice)):
            yield f"{suite.source.samples} requests of {suite.source.name}, but {n} were answered"
    if report.suite.samples != (n := sum(suite.source.samples for suite in report.suites)):
        yield f"{report.suite.samples} requests, but {n} in the suites"


def _asked(cells: Iterable[Cell]) -> int:
    return sum(cell.refused.n for cell in cells if cell.arm == REFERENCE)


def _draws(variant: VariantResult, report: Report) -> Iterator[str]:
    """Whether several answers to each request go with one, and with what all of them say."""
    if variant.draws == 1:
        return
    drawn = by_group(variant.cells)
    greedy, every = by_group(variant.greedy), by_group(variant.all_draws)
    for group, arms in drawn.items():
        if not greedy.get(group, {}).keys() == every.get(group, {}).keys() == arms.keys():
            yield f"{variant.name}: {label(*group)} requests lack their greedy or drawn answers"
            return
    for cell in (*variant.greedy, *variant.all_draws):
        yield from cell_problems(cell)
    yield from _more(f"greedy answers of {variant.name}", _answers(variant.greedy), report)
    for group, arms in drawn.items():
        for arm, cell in arms.items():
            name = f"{variant.name}: {label(*group)} in the arm {arm}"
            n, draws = every[group][arm].refused.n, variant.draws
            if cell.refused.n != n * draws or greedy[group][arm].refused.n != n:
                yield f"{name}: not {draws} draws and one greedy answer of each request"
            wrong, right = cell.refused.count, n * draws - cell.refused.count
            if cell.harmful:
                wrong, right = right, wrong
            failed = every[group][arm].refused.count
            failed = n - failed if cell.harmful else failed
            if not failed <= wrong <= failed * draws:
                yield f"{name}: {wrong} draws are wrong, which are not of {failed} requests"


def _leaks(rest: Unleaked, report: Report) -> Iterator[str]:
    yield from _more("without leaks", _counts(rest), report)
    gone = _asked((*report.cells, *report.advice)) - _asked((*rest.cells, *rest.advice))
    if gone != len({*report.near}):
        yield f"{gone} requests are left out as leaks, but {len({*report.near})} are near"


def _means(report: Report) -> Iterator[str]:
    """Means over suites, each of the same weight."""
    rates: dict[tuple[str, str], list[float]] = {}
    for suite in report.suites if len(report.suites) > 1 else []:
        for cell in suite.cells:
            kind = label(cell.harmful, cell.modality), cell.arm
            rates.setdefault(kind, []).append(cell.refused.rate)
    stated = {(label(m.harmful, m.modality), m.arm): m for m in report.means}
    if stated.keys() != rates.keys() or len(stated) < len(report.means):
        yield "the means over suites are not those of the suites"
        return
    for key, own in rates.items():
        mean = stated[key]
        if mean.suites != len(own) or abs(mean.rate - fmean(own)) > ROUNDING:
            name = " in the arm ".join(key)
            yield f"the mean of {name} over {len(own)} suites is not {mean.rate:g}"


def _doses(dose: Dose, report: Report) -> Iterator[str]:
    """Whether the weakest and the usual dose are of the requests as they are."""
    name = label(dose.harmful, dose.modality)
    factors = [point.factor for point in dose.points]
    if factors != [*FACTORS.values()] or len({p.refused.n for p in dose.points}) > 1:
        yield f"{name} requests were not steered by the same doses"
        return
    cells = [c for c in (*report.cells, *report.advice) if label(c.harmful, c.modality) == name]
    for arm, point in zip(FACTORS, dose.points, strict=True):
        own = [cell.refused for cell in cells if cell.arm == arm]
        for rate in (point.refused, point.degenerate, point.unknown):
            yield from rate_problems(rate, f"{name} at {point.factor:g} times the push")
        refused, answered = sum(r.count for r in own), sum(r.n - r.count for r in own)
        rate = point.refused
        if own and not (rate.count <= refused and rate.n - rate.count <= answered):
            yield f"{rate.count}/{rate.n} {name} of the dose {point.factor:g} are not among all"
