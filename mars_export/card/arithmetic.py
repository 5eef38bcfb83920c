"""Whether the tables of a report are complete, and follow from one another.

What can be computed again from the numbers of a table alone is computed again. The sample log,
where it is at hand, says more (`samples`).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from typing import Final

from mars_export.card.lines import Group, by_group
from mars_export.card.outcomes import EVENTS, changes, outcome_of
from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.changes import FEWEST, finding
from mars_export.evaluation.report import (
    REFERENCE,
    Cell,
    KindTest,
    Outcome,
    Pair,
    PairedTest,
    Part,
    PooledTest,
    Rate,
    label,
)
from mars_export.evaluation.statistics import (
    FEWEST_RESAMPLED,
    TAIL,
    Difference,
    clopper_pearson,
    one_sided,
    paired_change,
    two_sided,
)

__all__ = ["ROUNDING", "cell_problems", "part_problems", "rate_problems"]

ROUNDING: Final = 1e-6
"""Other versions of SciPy may differ by less."""


def part_problems(part: Part, required: Collection[str], draws: int | None = 1) -> Iterator[str]:
    """What is missing in some tables, or denied by their own numbers.

    Args:
        part: The tables.
        required: Arms that must have answered.
        draws: Answers to each request; None where they differ.
    """
    table = by_group(part.cells)
    for group, arms in table.items():
        if absent := sorted({*required} - arms.keys()):
            yield f"{label(*group)} requests were not run in every arm ({absent[0]} is missing)"
            return
    if len(part.cells) > sum(map(len, table.values())):
        yield "there are two cells for the same requests"
    for cell in (*part.cells, *part.advice):
        yield from cell_problems(cell)
    every: dict[Outcome, Sequence[KindTest]] = {
        "refused": part.pairs,
        "harm": part.harm_pairs,
        "broken": part.broken_pairs,
        "cut": part.cut_pairs,
    }
    for outcome, tests in every.items():
        yield from _missing(outcome, tests, part, table)
        for test in tests:
            arms = table[test.harmful, test.modality]
            yield from _test_problems(test, arms[REFERENCE], arms[test.arm], draws)
        if draws == 1 and outcome == "cut":
            yield from _cut_problems(part, table)
        yield from _pooled_problems(outcome, tests, part.pooled)


def _missing(
    outcome: Outcome,
    tests: Sequence[KindTest],
    part: Part,
    table: Mapping[Group, Mapping[str, Cell]],
) -> Iterator[str]:
    """Cells without their test, and tests without their cells."""
    judged = [EVENTS[outcome](cell) is not None for cell in part.cells]
    if any(judged) and not all(judged):
        yield "harm is judged in some of the cells only"
    cells = {(*group, arm) for group, arms in table.items() for arm in arms if any(judged)}
    due = {key for key in cells if key[-1] != REFERENCE}
    tested = [(test.harmful, test.modality, test.arm) for test in tests]
    for harmful, modality, arm in sorted(due ^ {*tested}):
        what = "tested and has no counts" if (harmful, modality, arm) in tested else "not tested"
        yield f"{label(harmful, modality)} in the arm {arm} ({outcome}) is {what}"
    pooled = [(t.harmful, t.arm) for t in part.pooled if t.outcome == outcome]
    if sorted(pooled) != sorted({(harmful, arm) for harmful, _, arm in due}):
        yield f"not every arm is tested over all modalities ({outcome})"
    if len(tested) > len({*tested}):
        yield f"something is tested twice ({outcome})"


def cell_problems(cell: Cell) -> Iterator[str]:
    """Whether the rates of a cell are those of its verdicts."""
    name = f"{label(cell.harmful, cell.modality)} in the arm {cell.arm}"
    counts = {
        "refused": sum(cell.verdicts.get(verdict, 0) for verdict in REFUSED),
        "degenerate": cell.verdicts.get("degenerate", 0),
        "unknown": cell.verdicts.get("unknown", 0),
    }
    n = sum(cell.verdicts.values())
    for field, count in counts.items():
        rate: Rate = getattr(cell, field)
        if (rate.count, rate.n) != (count, n):
            yield f"{rate.count}/{rate.n} {name} are {field}, but the verdicts say {count}/{n}"
    rates = (cell.refused, cell.degenerate, cell.unknown, cell.cut, cell.harm, cell.harm_unknown)
    for rate in filter(None, rates):
        if (rate.n, rate.clusters) != (n, cell.refused.clusters):
            yield f"the rates of {name} are of different requests"
        yield from rate_problems(rate, name)


def rate_problems(rate: Rate, name: str) -> Iterator[str]:
    """Whether a rate can be one of so many requests and topics.

    A topic counts as one request at most, so that no interval is narrower than the exact one for
    as many requests as there are topics.
    """
    if not (0 <= rate.count <= rate.n and 1 <= rate.clusters <= rate.n):
        yield f"{rate.count} of {rate.n} {name} in {rate.clusters} topics is impossible"
        return
    exact = _exact(rate.count / rate.n, rate.clusters)
    if abs(rate.rate - exact.value) > ROUNDING or not rate.low <= rate.rate <= rate.high:
        yield f"the rate of {rate.count}/{rate.n} {name} is not {rate.rate:g}"
    elif rate.low > exact.low + ROUNDING or rate.high < exact.high - ROUNDING:
        share = f"{rate.count}/{rate.n} {name}"
        yield f"the interval of {share} is too narrow for {rate.clusters} topics"


def _test_problems(test: KindTest, before: Cell, after: Cell, draws: int | None) -> Iterator[str]:
    outcome = outcome_of(test)
    name = f"{label(test.harmful, test.modality)} in the arm {test.arm} ({outcome})"
    n, (events, later) = before.refused.n, map(EVENTS[outcome], (before, after))
    change = ((later or 0) - (events or 0)) / n
    if after.refused.n != n or (draws and n != draws * test.n):
        yield f"{test.n} {name} were compared, not {n} and {after.refused.n}"
    elif outcome != "cut" and draws and abs(test.difference - change) > ROUNDING:
        yield f"the difference of {name} does not add up to its counts"
    elif draws == 1 and not _fits(changes(test), events or 0, later or 0):
        yield f"more {name} changed than {events} and {later} allow"
    elif isinstance(test, Pair):
        risk = before.refused.count if test.harmful else test.n - before.refused.count
        yield from _risk_problems(test, risk if draws == 1 else None, name)
    yield from _sign_problems(test, name)
    yield from _interval_problems(test, name, once=draws == 1)


def _fits(change: tuple[int, int], before: int, after: int) -> bool:
    """Whether so many requests can have gained and lost what so many have before and after."""
    return change[0] <= after and change[1] <= before


def _cut_problems(part: Part, table: Mapping[Group, Mapping[str, Cell]]) -> Iterator[str]:
    """Whether counts of cut answers differ by more than is compared.

    Where one of the two answers is a refusal, that one was cut and the other not is not compared.
    """
    refusals = {(p.harmful, p.modality, p.arm): sum(changes(p)) for p in part.pairs}
    for test in part.cut_pairs:
        arms, (gained, lost) = table[test.harmful, test.modality], changes(test)
        rise = arms[test.arm].cut.count - arms[REFERENCE].cut.count
        free = refusals.get((test.harmful, test.modality, test.arm), 0)
        if abs(rise - gained + lost) > free:
            name = f"{label(test.harmful, test.modality)} in the arm {test.arm}"
            yield f"the cut answers of {name} do not add up to what changed"


def _risk_problems(test: Pair | PooledTest, risk: int | None, name: str) -> Iterator[str]:
    """Whether those made worse are those of the counts, of those that could be."""
    worse = changes(test)[0 if test.more_is_harm else 1]
    harmed = (test.harmed.count, test.harmed.n) if test.harmed else (0, 0)
    risk = test.at_risk if risk is None else risk
    if (test.at_risk, *harmed) != (risk, worse, risk):
        yield (
            f"{harmed[0]}/{harmed[1]} {name} are said to be made worse, but {risk} could be and "
            f"{worse} are"
        )
    elif test.harmed:
        yield from rate_problems(test.harmed, name)


def _sign_problems(test: PairedTest, name: str) -> Iterator[str]:
    """Whether the sign test and what follows from it are those of the topics that changed."""
    gained, lost = changes(test)
    worse, better = (gained, lost) if test.more_is_harm else (lost, gained)
    word = finding(test.worse, test.better, *test.harm_ends)
    stated = test.p_harm, test.p_value
    exact = one_sided(test.worse, test.better), two_sided(test.worse, test.better)
    if gained + lost > test.n or not 1 <= test.clusters <= test.n:
        yield f"{gained} and {lost} of {test.n} {name} cannot have changed"
    elif test.worse + test.better > test.clusters or test.worse > worse or test.better > better:
        yield f"more topics of {name} changed than there are"
    elif test.n == test.clusters and (test.worse, test.better) != (worse, better):
        yield f"the topics of {name} that changed are not its requests"
    elif any(abs(one - other) > ROUNDING for one, other in zip(stated, exact, strict=True)):
        yield f"the p values of {name} are not those of its topics"
    elif test.harm != word:
        yield f"harm to {name} is called {test.harm}, but its numbers say {word}"
    elif test.testable != _is_testable(test):
        yield f"{name} is said to have {'enough' if test.testable else 'too few'} topics to tell"


def _is_testable(test: PairedTest) -> bool:
    """Whether harm could be shown, as far as the numbers of the test say."""
    risk = test.at_risk if isinstance(test, Pair | PooledTest) else None
    if test.clusters < FEWEST or (risk is not None and risk < FEWEST):
        return False
    if test.worse >= FEWEST or (risk is not None and test.n == test.clusters):
        return True
    return test.testable


def _interval_problems(test: PairedTest, name: str, *, once: bool) -> Iterator[str]:
    """Whether the interval holds the difference, and is no narrower than the topics allow."""
    gained, lost = changes(test)
    if not test.low <= test.difference <= test.high:
        yield f"the interval of {name} does not hold its difference"
    elif once and abs(test.difference - (gained - lost) / test.n) > ROUNDING:
        yield f"the changes of {name} do not add up to its difference"
    elif once:
        low, high = _narrowest(gained, lost, test.n, test.clusters)
        if test.low > low + ROUNDING or test.high < high - ROUNDING:
            yield f"the interval of {name} is too narrow for {test.clusters} topics"


@cache
def _narrowest(gained: int, lost: int, n: int, clusters: int) -> tuple[float, float]:
    """The narrowest interval of so many requests that changed: exact if each is a topic.

    Else each end lies at least as far as the exact bound of the one share allows while the other
    stays. Where enough change, topics that all change alike may vary as little as one likes.
    """
    if n == clusters:
        steps = [1] * gained + [-1] * lost + [0] * (n - gained - lost)
        return paired_change(steps, range(n))[1:]
    if gained + lost >= FEWEST_RESAMPLED:
        return (gained - lost) / n, (gained - lost) / n
    up, down = _exact(gained / n, clusters), _exact(lost / n, clusters)
    return up.value - down.high, up.high - down.value


@cache
def _exact(share: float, n: int) -> Difference:
    return clopper_pearson(share, n, n, TAIL)


def _pooled_problems(
    outcome: Outcome, tests: Sequence[KindTest], pooled: Sequence[PooledTest]
) -> Iterator[str]:
    """Whether the tests over all modalities are the sums of those of each."""
    for test in (test for test in pooled if test.outcome == outcome):
        name = f"{'harmful' if test.harmful else 'harmless'} in the arm {test.arm} ({outcome})"
        own = [t for t in tests if (t.arm, t.harmful) == (test.arm, test.harmful)]
        sums = tuple(map(sum, zip(*((t.n, *changes(t)) for t in own), strict=True)))
        most, least = sum(t.clusters for t in own), max((t.clusters for t in own), default=0)
        if sums != (test.n, *changes(test)) or not least <= test.clusters <= most:
            yield f"the test of {name} over all modalities is not the sum of those of each"
        risk = sum(t.at_risk for t in own if isinstance(t, Pair))
        yield from _risk_problems(test, risk if outcome == "refused" else None, name)
        yield from _sign_problems(test, name)
        yield from _interval_problems(test, name, once=False)
