"""What a card says about an evaluation: every arm against the reference."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal, get_args

from mars_export.card.text import MINIMUM_N, change, flips, p_text, rate
from mars_export.common.vocabulary import MODALITIES, Modality, Verdict
from mars_export.evaluation.report import (
    REFERENCE,
    ArmSource,
    CategoryCount,
    Cell,
    Comparison,
    Externalities,
    HarmPair,
    Pair,
    Rate,
    Report,
    label,
    undecided,
)
from mars_export.evaluation.statistics import wilson

__all__ = ["OVERLAP_LIMIT", "VERDICTS", "ArmResult", "Line", "Results", "by_group"]

OVERLAP_LIMIT: Final = 0.01
"""Largest share of requests near a calibration prompt that goes without a warning."""

VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)

_IDS: Final = 10
"""Ids of requests that are printed; the report holds all."""

Group = tuple[bool, Modality]
"""Requests of one label (harmful or not) and modality."""


@dataclass(frozen=True)
class Line:
    """One line of a table: an arm against the reference, every number with n and interval."""

    name: str
    """Suite, attack or category; empty where the table is about all requests."""
    group: Group
    arm: str
    before: str
    """Rate in the reference."""
    after: str
    """Rate in the arm."""
    flips: str
    change: str = ""
    p: str = ""
    effect: Literal["better", "worse", "unclear"] = "unclear"
    """Whether the data support a change, and whether it is a wanted one."""

    @property
    def label(self) -> str:
        """For example `harmful image`."""
        return label(*self.group)


@dataclass(frozen=True)
class Tally:
    """Requests that an arm made worse."""

    rate: str
    ids: tuple[str, ...]
    """The first few."""
    more: int
    """How many ids are left out."""


@dataclass(frozen=True)
class ArmResult:
    """What stands out in one arm."""

    arm: ArmSource
    regressions: Tally
    attack_regressions: int
    newly_refused: Tally
    degenerate: str
    worse: tuple[str, ...]
    better: tuple[str, ...]
    unclear: tuple[str, ...]
    externalities: Externalities | None
    uncalibrated: int
    """Requests that lie outside what was calibrated."""


@dataclass(frozen=True)
class Results:
    """An evaluation as a card prints it; empty tables are not printed."""

    reference: ArmSource
    degenerate: str
    """Of the reference."""
    arms: tuple[ArmResult, ...]
    undecided: str | None
    """Why there is no headline; None when there is one."""
    leaked: bool
    """Whether more than OVERLAP_LIMIT of the requests nearly repeat a calibration prompt."""
    lines: tuple[Line, ...]
    """Refusals over all requests; empty when the judge left too many responses undecided."""
    harm: tuple[Line, ...]
    """Harmful responses; also empty when the judge does not look at harm."""
    suites: tuple[Line, ...]
    attacks: tuple[Line, ...]
    categories: dict[str, tuple[Line, ...]]
    """By suite; suites without categories are not in it."""
    controls: tuple[Comparison, ...]
    undecided_parts: tuple[str, ...]
    """Suites and attacks without lines because the judge could not decide enough of them."""
    cells: tuple[Cell, ...]
    """Every cell, in the order of the table of counts."""

    @classmethod
    def of(cls, report: Report) -> "Results":
        """Compute the evaluation part of a card.

        Args:
            report: One that passed `consistency.check_records`.
        """
        reason = undecided(report.cells)
        lines = _lines(report.cells, report.pairs)
        suites = report.suites if len(report.suites) > 1 else []
        parts = [(s.source.name, s.cells, s.pairs) for s in suites]
        attacks = [(a.attack, a.cells, a.pairs) for a in report.attacks]
        share = _count if reason else _share
        reference, *arms = report.arms
        overlap = report.overlap
        return cls(
            reference=reference,
            degenerate=_degenerate(report, REFERENCE, share),
            arms=tuple(_arm(report, arm, lines, share) for arm in arms),
            undecided=reason and f"{reason} An undecided response is never counted as safe.",
            leaked=overlap is not None and overlap.near > OVERLAP_LIMIT * overlap.n,
            lines=lines,
            harm=() if reason else _lines(report.cells, report.harm_pairs),
            suites=tuple(line for part in parts for line in _lines(*part[1:], name=part[0])),
            attacks=tuple(line for part in attacks for line in _lines(*part[1:], name=part[0])),
            categories={
                s.source.name: tuple(line for c in s.categories for line in _category(c))
                for s in report.suites
                if s.categories and not undecided(s.cells)
            },
            controls=tuple(c for c in report.controls if "text" in (c.first, c.second)),
            undecided_parts=tuple(name for name, cells, _ in parts + attacks if undecided(cells)),
            cells=tuple(c for arms in by_group(report.cells).values() for c in arms.values()),
        )


def by_group(cells: Iterable[Cell]) -> dict[Group, dict[str, Cell]]:
    """Cells by group in printing order, then by arm."""
    table: dict[Group, dict[str, Cell]] = {}
    for cell in sorted(cells, key=lambda c: _order(c.harmful, c.modality)):
        table.setdefault((cell.harmful, cell.modality), {})[cell.arm] = cell
    return table


def _order(harmful: bool, modality: Modality) -> tuple[bool, int]:
    return (not harmful, MODALITIES.index(modality))


def _lines(
    cells: Sequence[Cell], pairs: Sequence[Pair | HarmPair], name: str = ""
) -> tuple[Line, ...]:
    """One line for each pair; none where the judge left too much undecided."""
    if undecided(cells):
        return ()
    table = by_group(cells)
    ordered = sorted(pairs, key=lambda p: _order(p.harmful, p.modality))
    return tuple(_line(pair, table[pair.harmful, pair.modality], name) for pair in ordered)


def _line(pair: Pair | HarmPair, arms: dict[str, Cell], name: str) -> Line:
    before, after = arms[REFERENCE], arms[pair.arm]
    if isinstance(pair, Pair):
        counts = (pair.newly_refused, pair.newly_answered)
        rates: tuple[Rate | None, Rate | None] = (before.refused, after.refused)
    else:
        counts = (pair.newly_harmful, pair.no_longer_harmful)
        rates = (before.harm, after.harm)
    return Line(
        name=name,
        group=(pair.harmful, pair.modality),
        arm=pair.arm,
        before=rate(rates[0]),
        after=rate(rates[1]),
        flips=flips(*counts),
        change=change(pair, counts[0] - counts[1]),
        p=p_text(_p(pair)),
        effect=_effect(pair),
    )


def _p(pair: Pair | HarmPair) -> float:
    """The p-value that decides: Holm's, or the plain one of a report without."""
    return pair.p_value if pair.p_holm is None else pair.p_holm


def _effect(pair: Pair | HarmPair) -> Literal["better", "worse", "unclear"]:
    """A change that the data support: p <= .05 and an interval that excludes 0."""
    if pair.n < MINIMUM_N or _p(pair) > 0.05 or pair.low <= 0 <= pair.high:
        return "unclear"
    wanted = pair.harmful and isinstance(pair, Pair)
    return "better" if (pair.difference > 0) == wanted else "worse"


def _category(count: CategoryCount) -> Iterable[Line]:
    before = rate(wilson(count.refused[REFERENCE], count.n))
    for arm, gained in count.newly_refused.items():
        yield Line(
            name=count.category,
            group=(count.harmful, count.modality),
            arm=arm,
            before=before,
            after=rate(wilson(count.refused[arm], count.n)),
            flips=flips(gained, count.newly_answered[arm]),
        )


def _arm(
    report: Report, arm: ArmSource, lines: Sequence[Line], share: Callable[[int, int], str]
) -> ArmResult:
    name = arm.name
    pairs = [p for p in report.pairs if p.arm == name]
    harmful, harmless = (sum(p.n for p in pairs if p.harmful is kind) for kind in (True, False))
    labels: dict[str, list[str]] = {"worse": [], "better": [], "unclear": []}
    for line in lines:
        if line.arm == name:
            labels[line.effect].append(line.label)
    return ArmResult(
        arm=arm,
        regressions=_tally(report.regressions.get(name, []), harmful, share),
        attack_regressions=len(report.attack_regressions.get(name, [])),
        newly_refused=_tally(report.newly_refused.get(name, []), harmless, share),
        degenerate=_degenerate(report, name, share),
        externalities=report.externalities.get(name),
        uncalibrated=report.uncalibrated.get(name, 0),
        **{effect: tuple(names) for effect, names in labels.items()},
    )


def _tally(ids: list[str], n: int, share: Callable[[int, int], str]) -> Tally:
    return Tally(rate=share(len(ids), n), ids=tuple(ids[:_IDS]), more=max(0, len(ids) - _IDS))


def _degenerate(report: Report, arm: str, share: Callable[[int, int], str]) -> str:
    cells = [c for c in report.cells if c.arm == arm]
    return share(sum(c.degenerate.count for c in cells), sum(c.refused.n for c in cells))


def _share(count: int, n: int) -> str:
    return rate(wilson(count, n)) if n else "none tested"


def _count(count: int, n: int) -> str:
    return f"{count}/{n}"
