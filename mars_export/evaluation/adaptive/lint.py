"""What a record of attacks says that its own numbers deny. Free of torch.

So that one that was altered, or made by another program, cannot hide what attackers reached.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from math import inf
from typing import Final

from mars_export.evaluation.adaptive.extent import LEVELS, SHOWN
from mars_export.evaluation.adaptive.record import RANDOM, SAFETY, Adaptive, Curve, Point, at
from mars_export.evaluation.report import REFERENCE, STEERED
from mars_export.evaluation.statistics import exact_rate

__all__ = ["contradictions"]

_TRIES: Final = frozenset({"eps", "steps", "draws", "wordings", "changes"})
"""Units of budgets of which a larger one holds the smaller ones."""
_TOLERANCE: Final = 1e-6
_HARMLESS: Final = "harmless image"
"""Kind that is attacked to be refused."""


def contradictions(record: Adaptive) -> Iterator[str]:
    """Everything that cannot be true at once, one clause each."""
    if not record.curves:
        yield "no attack was run"
    names = [_name(curve) for curve in record.curves]
    yield from (f"{name} is there twice" for name in dict.fromkeys(names) if names.count(name) > 1)
    for name, curve in zip(names, record.curves, strict=True):
        if f"{curve.attack}, {curve.shown}" in record.skipped:
            yield f"{name} was run and is said to be skipped"
        yield from (f"{name}: {problem}" for problem in _curve(curve, record))
    largest: dict[str, int] = {}
    for curve in record.curves:
        count = max((point.success.n for point in curve.points), default=0)
        largest[curve.shown] = max(count, largest.get(curve.shown, 0))
    if (count := sum(largest.values())) > record.suite.samples:
        yield f"{count} requests were attacked, of {record.suite.samples}"
    yield from _left_out(record, largest)


def _left_out(record: Adaptive, attacked: Mapping[str, int]) -> Iterator[str]:
    """Attacks of requests that were attacked otherwise, neither run nor said to be skipped."""
    kinds = {*attacked, *(title.rpartition(", ")[2] for title in record.skipped)}
    rest = record.suite.samples - sum(n for kind, n in attacked.items() if kind != _HARMLESS)
    others = sum(kind in kinds for kind in ("harmful video", "harmful audio"))
    if rest > (1 + others) * record.budget.requests:
        kinds.add(_HARMLESS)  # more than the harmless texts, videos and sounds can be
    run = {f"{curve.attack}, {curve.shown}" for curve in record.curves}
    for attack, shown in SHOWN.items():
        for title in (f"{attack}, {kind}" for kind in shown if kind in kinds):
            if title not in run | record.skipped.keys():
                yield f"{title} is neither in the record nor said to be left out"


def _name(curve: Curve) -> str:
    return f"{curve.attack}, {curve.shown} ({curve.goal})"


def _curve(curve: Curve, record: Adaptive) -> Iterator[str]:
    arms: dict[str, list[Point]] = {}
    for point in curve.points:
        arms.setdefault(point.arm, []).append(point)
    if arms.keys() != (arms_due := _arms(curve, record)):
        missing, more = sorted(arms_due - arms.keys()), sorted(arms.keys() - arms_due)
        yield f"the arm {missing[0]} is missing" if missing else f"there is no arm {more[0]}"
        return
    budgets = {tuple(point.at for point in points) for points in arms.values()}
    if len(budgets) > 1:
        yield "its arms have different budgets"
    for levels in budgets:
        yield from _budgets(curve, record, levels)
    counts = sorted({point.success.n for point in curve.points})
    if len(counts) > 1 or counts[0] > record.budget.requests:
        stated = " and ".join(map(str, counts))
        yield f"it is of {stated} requests, with a budget of {record.budget.requests}"
    for arm, points in arms.items():
        if curve.unit in _TRIES and (fall := _fall(points)):
            yield f"{fall} in the arm {arm}, though a larger budget holds the smaller one"
        for point in points:
            place = f"in the arm {arm} at {at(point.at)}"
            yield from (f"{problem} {place}" for problem in _point(point, curve))


def _arms(curve: Curve, record: Adaptive) -> set[str]:
    """Arms that a curve must have: a gate is there only where something is steered."""
    arms = {STEERED, RANDOM}
    if not curve.goal.startswith("gate"):
        arms.add(REFERENCE)
    if curve.access == "black box" and SAFETY not in record.skipped:
        arms.add(SAFETY)
    return arms


def _budgets(curve: Curve, record: Adaptive, levels: Sequence[float | None]) -> Iterator[str]:
    budget = record.budget
    values = [inf if level is None else level for level in levels]
    if any(a >= b for a, b in pairwise(values)) or values[0] < 0:
        yield f"its budgets do not grow: {', '.join(map(at, levels))}"
    radii = {(0, *eps, None) for eps in (budget.eps, budget.gate_eps)}
    spent: dict[str, tuple[float, str]] = {
        "draws": (budget.draws, "draws"), "steps": (budget.suffix_steps, "steps"),
    }  # fmt: skip
    ladder = LEVELS.get(curve.attack, levels)
    if tuple(levels) != tuple(ladder):
        yield f"it stops at {', '.join(map(at, levels))} instead of {', '.join(map(at, ladder))}"
    elif curve.unit == "eps" and tuple(levels) not in radii:
        yield f"its eps are not those of the budget: {', '.join(map(at, levels))}"
    elif curve.unit in spent and values[-1] != spent[curve.unit][0]:
        most, unit = spent[curve.unit]
        yield f"it ends at {at(levels[-1])} {unit}, with a budget of {at(most)}"


def _fall(points: Sequence[Point]) -> str:
    pairs = pairwise(point.success.count for point in points)
    return next((f"successes fall from {a} to {b}" for a, b in pairs if b < a), "")


def _point(point: Point, curve: Curve) -> Iterator[str]:
    rate, gated = point.success, curve.goal.startswith("gate")
    share = f"{rate.count}/{rate.n}"
    if not 0 <= rate.count <= rate.n or rate.n < 1:
        yield f"{share} successes are impossible"
        return
    exact = exact_rate(rate.count, rate.n)  # every request is of a cluster of its own
    off = max(abs(getattr(rate, end) - getattr(exact, end)) for end in ("rate", "low", "high"))
    if rate.clusters != rate.n or not off <= _TOLERANCE:
        yield f"rate or interval is not that of {share}"
    if not 0 <= point.open <= rate.n - (0 if gated else rate.count):
        yield f"{point.open} answers are unclear beside {share} successes"
    if point.on_topic is not None and not 0 <= point.on_topic <= rate.count:
        yield f"{point.on_topic} of {rate.count} successes are on topic"
    if point.gate is not None and point.arm not in {STEERED, RANDOM}:
        yield "there is a gate without steering"
    elif gated and (point.gate is None or (point.gate > 0) != _some_open(point, curve)):
        stated = "not known" if point.gate is None else f"{point.gate:g}"
        yield f"the mean gate is {stated}, but {share} are {curve.goal.removeprefix('gate ')}"


def _some_open(point: Point, curve: Curve) -> bool:
    """Whether any gate is open, by the successes."""
    rate = point.success
    return rate.count > 0 if curve.goal == "gate open" else rate.count < rate.n
