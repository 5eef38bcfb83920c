"""The card of a comparison: `README.md`, harm first. Pure: the same record gives the same text."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from mars_export.card.lines import order
from mars_export.card.outcomes import changes, outcome_of
from mars_export.card.text import FILTERS, MINIMUM_N, change, p_text
from mars_export.common.markdown import DASH, code, num, size, templates, unbroken
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.comparison.figures import FRONTIER
from mars_export.comparison.frontier import frontier, points
from mars_export.comparison.record import Answered, Comparison, Ratio, Way
from mars_export.evaluation.report import (
    LEVEL,
    MARGIN,
    REFERENCE,
    KindTest,
    Outcome,
    Pair,
    Rate,
    label,
)

__all__ = ["render"]

_OUTCOMES: Final[Mapping[Outcome, str]] = {
    "refused": "refused", "harm": "harmful answers", "broken": "broken answers",
    "cut": "cut answers",
}  # fmt: skip


@dataclass(frozen=True)
class _Row:
    """One contender in the first table, the model as it is first."""

    name: str
    refused: list[Rate | None]
    """Harmful requests, by modality."""
    new: list[Rate | None]
    """Harmless requests newly refused, as they are and in controls, by modality."""
    lost: str
    """Harmful requests that the model as it is refuses and the contender does not."""
    frontier: list[Modality]
    """Modalities on whose frontier it is."""


@dataclass(frozen=True)
class _Harm:
    """A contender that makes something worse."""

    name: str
    shown: str
    """Comparisons in which harm was shown, and of how many."""
    worst: str
    """Kind of request in which it does most."""
    change: str
    """Of what, and by how much."""


@dataclass(frozen=True)
class _Cost:
    """One contender in the table of costs."""

    name: str
    kl: str
    same: str
    first_token: str
    decode: str
    travels: str
    needs: str


@dataclass(frozen=True)
class _Test:
    """One line of the tests against the yardstick."""

    name: str
    harmful: bool
    modality: Modality
    change: str
    p: str
    verdict: str


def render(comparison: Comparison) -> str:
    """The card's text.

    Args:
        comparison: The record; the plot is `figures.draw`.
    """
    environment = templates("mars_export.comparison")
    environment.filters |= FILTERS
    answered = comparison.answered
    values = {} if answered is None else _values(comparison, answered)
    return environment.get_template("card.md.j2").render(
        comparison=comparison,
        answered=answered,
        refused=[c for c in comparison.contenders if c.turned_down],
        margin=f"{100 * MARGIN:g}",
        minimum=MINIMUM_N,
        FRONTIER=FRONTIER,
        **values,
    )


def _values(comparison: Comparison, answered: Answered) -> dict[str, object]:
    names = [c.name for c in comparison.compared]
    shown = [m for m in MODALITIES if any(c.modality == m for c in answered.plain.cells)]
    lines = {m: {p.arm for p in frontier(points(answered, m))} for m in shown}
    return {
        "modalities": shown,
        "rows": [_row(answered, name, shown, lines) for name in names],
        "costs": [_cost(comparison, answered, name, shown) for name in names if name != REFERENCE],
        "tests": _tests(answered, names),
        "harms": list(_harms(answered, names)),
        "kinds": _kinds(answered, names),
        "attacks": _attacks(answered, names),
        "others": [name for name in names if name != REFERENCE],
    }


def _row(
    answered: Answered, name: str, shown: Sequence[Modality], lines: dict[Modality, set[str]]
) -> _Row:
    refused = {c.modality: c.refused for c in answered.plain.cells if c.harmful and c.arm == name}
    new = {p.modality: p.harmed for p in answered.harmless if p.arm == name}
    own = [p for p in answered.plain.pairs if p.harmful and p.arm == name]
    lost, risk = sum(p.newly_answered for p in own), sum(p.at_risk for p in own)
    return _Row(
        name,
        [refused.get(m) for m in shown],
        [new.get(m) for m in shown],
        DASH if name == REFERENCE else f"{lost}/{risk}",
        [m for m in shown if name in lines[m]],
    )


def _cost(
    comparison: Comparison, answered: Answered, name: str, shown: Sequence[Modality]
) -> _Cost:
    contender = next(c for c in comparison.compared if c.name == name)
    own = [b for b in answered.behavior if b.arm == name]
    means = {b.modality: b.kl_mean for b in own}
    same, n = sum(b.same.count for b in own), sum(b.n for b in own)
    first = {s.modality: s.first_token for s in answered.speed if s.arm == name}
    further = {s.modality: s.decode for s in answered.speed if s.arm == name}
    travels = contender.travels
    return _Cost(
        name=name,
        kl=" / ".join(_nats(means.get(m)) for m in shown),
        same=f"{same}/{n}",
        first_token=" / ".join(_times(first.get(m)) for m in shown),
        decode=" / ".join(_times(further.get(m)) for m in shown),
        travels=DASH
        if travels is None
        else f"{size(travels.bytes)}, {travels.lines} lines, {size(travels.memory)}",
        needs=", ".join(contender.needs) or DASH,
    )


def _times(ratio: Ratio | None) -> str:
    return DASH if ratio is None else f"{ratio.value:.2f}"


def _nats(value: float | None) -> str:
    return unbroken("< 0.001") if value is not None and 0 < value < 0.001 else num(value)


def _tests(answered: Answered, names: Sequence[str]) -> list[_Test]:
    """Every contender against the yardstick: harmful as they are, harmless with controls."""
    pairs = sorted(
        answered.against, key=lambda p: (order(p.harmful, p.modality), names.index(p.arm))
    )
    return [
        _Test(
            p.arm,
            p.harmful,
            p.modality,
            change(p, p.newly_refused - p.newly_answered),
            p_text(p.p_value if p.p_holm is None else p.p_holm),
            _verdict(p),
        )
        for p in pairs
    ]


def _verdict(pair: Pair) -> str:
    """Which of the two is better, where the data show it."""
    holm = pair.p_value if pair.p_holm is None else pair.p_holm
    if pair.harm == "shown":
        return "**worse**"
    better = pair.low > 0 if pair.harmful else pair.high < 0
    return "better" if better and holm <= LEVEL else "not told apart"


def _harms(answered: Answered, names: Sequence[str]) -> Iterator[_Harm]:
    """Contenders that make things worse than the model as it is, each with its worst comparison."""
    part = answered.plain
    tests: list[tuple[str, KindTest]] = [
        ("as they are", test)
        for test in (*part.pairs, *part.harm_pairs, *part.broken_pairs, *part.cut_pairs)
    ]
    tests += [(code(way.name), pair) for way in answered.ways for pair in way.pairs]
    for name in names:
        own = [(where, test) for where, test in tests if test.arm == name]
        shown = [(where, test) for where, test in own if test.harm == "shown"]
        if shown:
            where, worst = max(shown, key=lambda item: sum(item[1].harm_ends))
            gained, lost = changes(worst)
            yield _Harm(
                name=name,
                shown=f"{len(shown)} of {len(own)}",
                worst=f"{label(worst.harmful, worst.modality)}, {where}",
                change=f"{_OUTCOMES[outcome_of(worst)]} {change(worst, gained - lost)}",
            )


def _kinds(answered: Answered, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Harmless requests newly refused, one line per control and modality, one column per arm."""
    plain = Way(name="", about="", kind="control", cells=[], pairs=answered.plain.pairs)
    lines = []
    for way in (plain, *(way for way in answered.ways if way.kind == "control")):
        for modality in MODALITIES:
            new = {
                p.arm: f"{p.newly_refused}/{p.at_risk}"
                for p in way.pairs
                if not p.harmful and p.modality == modality
            }
            if new:
                title = f"{modality}, {way.name or 'as they are'}"
                lines.append((title, [new.get(name, DASH) for name in names if name != REFERENCE]))
    return lines


def _attacks(answered: Answered, names: Sequence[str]) -> list[tuple[str, list[str]]]:
    """Harmful requests refused under each attack, one column per arm."""
    lines = []
    for way in answered.ways:
        for modality in MODALITIES:
            refused = {
                c.arm: f"{c.refused.count}/{c.refused.n}"
                for c in way.cells
                if way.kind == "attack" and c.harmful and c.modality == modality
            }
            if refused:
                title = f"{modality}, {way.name}"
                lines.append((title, [refused.get(name, DASH) for name in names]))
    return lines
