"""What a card says below the pooled table: suites, controls and attacks."""

from collections.abc import Iterable
from dataclasses import dataclass

from mars_export.card.numbers import change, minus, p_text, rate, wilson
from mars_export.card.results import label, tested
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.report import CategoryCount, Cell, Comparison, Pair, Report, undecided

__all__ = ["Breakdown", "Line", "breakdown"]


@dataclass(frozen=True)
class Line:
    """One line of a table of rates, steering off and on."""

    name: str
    """Suite or attack."""
    label: str
    off: str
    on: str
    change: str
    flips: str
    p: str


@dataclass(frozen=True)
class CategoryLine:
    """One line of a table of categories; fewer than MINIMUM_N requests give counts only."""

    category: str
    label: str
    off: str
    on: str
    flips: str


@dataclass(frozen=True)
class Breakdown:
    """Tables of a card; empty ones are not printed."""

    suites: tuple[Line, ...]
    attacks: tuple[Line, ...]
    categories: dict[str, tuple[CategoryLine, ...]]
    """By suite; suites without categories are not in it."""
    controls: tuple[Comparison, ...]
    undecided: tuple[str, ...]
    """Suites and attacks left out because the judge could not decide enough of them."""


def breakdown(report: Report) -> Breakdown:
    """Compute the tables.

    Args:
        report: One that passed the record lints.
    """
    suites = report.suites if len(report.suites) > 1 else []
    parts = [(s.source.name, s.cells, s.pairs) for s in suites]
    tried = [(a.attack, a.cells, a.pairs) for a in report.attacks]
    return Breakdown(
        suites=tuple(line for part in parts for line in _lines(*part)),
        attacks=tuple(line for part in tried for line in _lines(*part)),
        categories={
            s.source.name: tuple(map(_category, s.categories))
            for s in report.suites
            if s.categories and not undecided(s.cells)
        },
        controls=tuple(c for c in report.controls if "text" in (c.first, c.second)),
        undecided=tuple(name for name, cells, _ in (*parts, *tried) if undecided(cells)),
    )


def _category(found: CategoryCount) -> CategoryLine:
    return CategoryLine(
        category=found.category,
        label=label(found.modality, found.harmful),
        off=rate(wilson(found.refused["off"], found.n)),
        on=rate(wilson(found.refused["on"], found.n)),
        flips=_flips(found),
    )


def _flips(found: Pair | CategoryCount) -> str:
    refused, answered = found.newly_refused, found.newly_answered
    if isinstance(refused, dict) and isinstance(answered, dict):
        refused, answered = refused.get("on", 0), answered.get("on", 0)
    return minus(f"+{refused}&nbsp;-{answered}")


def _lines(name: str, cells: list[Cell], pairs: list[Pair]) -> Iterable[Line]:
    if undecided(cells):
        return
    found: dict[tuple[Modality, bool, str], Cell] = {
        (cell.modality, cell.harmful, cell.arm): cell for cell in cells
    }
    for pair in pairs:
        off, on = (found[pair.modality, pair.harmful, arm] for arm in ("off", "on"))
        yield Line(
            name=name,
            label=label(pair.modality, pair.harmful),
            off=rate(off.refused),
            on=rate(on.refused),
            change=change(pair),
            flips=_flips(pair),
            p=p_text(tested(pair)),
        )
