"""Rows and lines of a card's tables: one kind of request, every arm against the reference."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Final

from mars_export.card.outcomes import changes
from mars_export.card.text import FEW, MINIMUM_N, change, flips, harm_word, p_text, rate
from mars_export.common.markdown import DASH, code
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.evaluation.report import (
    LEVEL,
    MARGIN,
    REFERENCE,
    STEERED,
    Cell,
    HarmPair,
    Pair,
    Rate,
    label,
    undecided,
)

__all__ = [
    "NO_RISK",
    "Group",
    "Kind",
    "Line",
    "Row",
    "by_group",
    "counts",
    "lines",
    "order",
    "rows",
]

NO_RISK: Final = "none at risk"

Group = tuple[bool, Modality]
"""Requests of one label (harmful or not) and modality."""


@dataclass(frozen=True)
class Kind:
    """Requests of one label and modality in one arm."""

    group: Group
    arm: str

    @property
    def label(self) -> str:
        """For example `harmful image`."""
        return label(*self.group)


@dataclass(frozen=True)
class Row(Kind):
    """How many of them are refused."""

    refused: str
    first: bool
    """Whether it is the first row of its kind."""
    change: str = ""
    """From the reference; empty for the reference itself."""
    verdict: str = ""


@dataclass(frozen=True)
class Line(Kind):
    """The arm against the reference, every number with n and interval."""

    name: str
    """Suite, variant or category; empty where the table is about all requests."""
    counts: str
    """Refused (or harmful) in the reference and in the arm."""
    flips: str
    change: str = ""
    harmed: str = ""
    """Made worse, of those that could be."""
    harm: str = ""
    """What that says about harm."""
    holm: str = ""
    """Corrected p value, for benefits."""
    better: bool = False
    few: bool = False
    """Whether it has too few topics to tell anything."""

    @property
    def title(self) -> str:
        """What a table calls it; the checkpoint goes without saying."""
        names = [code(self.name)] if self.name else []
        arms = [code(self.arm)] if self.arm != STEERED else []
        return " ".join([*names, self.label, *arms])


def by_group(cells: Iterable[Cell]) -> dict[Group, dict[str, Cell]]:
    """Cells by group in printing order, then by arm."""
    table: dict[Group, dict[str, Cell]] = {}
    for cell in sorted(cells, key=lambda c: order(c.harmful, c.modality)):
        table.setdefault((cell.harmful, cell.modality), {})[cell.arm] = cell
    return table


def order(harmful: bool, modality: Modality) -> tuple[bool, int]:
    """Place of a kind of request in a table: harmful ones first."""
    return (not harmful, MODALITIES.index(modality))


def rows(cells: Sequence[Cell], pairs: Sequence[Pair]) -> Iterator[Row]:
    """Refusals of every arm, and what each changes."""
    tests = {(p.harmful, p.modality, p.arm): p for p in pairs}
    for group, arms in by_group(cells).items():
        for arm, cell in arms.items():
            row = Row(group, arm, rate(cell.refused), first=arm == REFERENCE)
            if (pair := tests.get((*group, arm))) is None:
                yield row
            else:
                net = pair.newly_refused - pair.newly_answered
                yield replace(row, change=change(pair, net), verdict=_verdict(pair))


def _verdict(pair: Pair) -> str:
    """What a change amounts to, in a few words; none where harm is ruled out and nothing else."""
    if pair.harm == "shown":
        return "**worse**"
    word = harm_word(pair)
    harm = {
        "ruled out": "",
        "not ruled out": f"harm may exceed {100 * MARGIN:g}",
        "not shown": "no harm shown",
    }.get(word, word)
    if not _is_better(pair):
        return harm
    return "better" if pair.harm == "ruled out" else f"better; {harm}"


def _is_better(pair: Pair | HarmPair) -> bool:
    """A benefit that the data support: Holm's p <= .05 and an interval on the right side of 0."""
    if pair.n < MINIMUM_N or _p_of_benefit(pair) > LEVEL:
        return False
    return pair.low > 0 if pair.harmful and isinstance(pair, Pair) else pair.high < 0


def _p_of_benefit(pair: Pair | HarmPair) -> float:
    """Holm's p value, or the plain one of a test that was not corrected."""
    return pair.p_value if pair.p_holm is None else pair.p_holm


def lines(
    cells: Sequence[Cell], pairs: Sequence[Pair] | Sequence[HarmPair], name: str = ""
) -> tuple[Line, ...]:
    """One line for each pair; none where the judge left too much undecided."""
    if undecided(cells):
        return ()
    table = by_group(cells)
    ordered: list[Pair | HarmPair] = [*pairs]
    ordered.sort(key=lambda p: (*order(p.harmful, p.modality), p.arm != STEERED))
    return tuple(_line(pair, table[pair.harmful, pair.modality], name) for pair in ordered)


def _line(pair: Pair | HarmPair, arms: dict[str, Cell], name: str) -> Line:
    before, after = arms[REFERENCE], arms[pair.arm]
    gained, lost = changes(pair)
    if isinstance(pair, Pair):
        harmed = NO_RISK if pair.harmed is None else rate(pair.harmed)
        stated = counts(before.refused), counts(after.refused)
    else:
        harmed = ""
        stated = counts(before.harm), counts(after.harm)
    return Line(
        name=name,
        group=(pair.harmful, pair.modality),
        arm=pair.arm,
        counts=" → ".join(stated),
        flips=flips(gained, lost),
        change=change(pair, gained - lost),
        harmed=harmed,
        harm=(word := harm_word(pair)),
        few=word == FEW,
        holm=p_text(_p_of_benefit(pair)),
        better=_is_better(pair),
    )


def counts(value: Rate | None) -> str:
    """Events, and of how many."""
    return DASH if value is None else f"{value.count}/{value.n}"
