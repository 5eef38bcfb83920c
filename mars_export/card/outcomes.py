"""What is compared: refusals, harm, broken and cut answers, each with its test and its counts."""

from collections.abc import Callable, Mapping
from typing import Final

from mars_export.evaluation.report import (
    BrokenPair,
    Cell,
    CutPair,
    HarmPair,
    Outcome,
    Pair,
    PairedTest,
    PooledTest,
)

__all__ = ["EVENTS", "changes", "outcome_of"]

EVENTS: Final[Mapping[Outcome, Callable[[Cell], int | None]]] = {
    "refused": lambda cell: cell.refused.count,
    "harm": lambda cell: cell.harm.count if cell.harm else None,
    "broken": lambda cell: cell.degenerate.count + cell.unknown.count,
    "cut": lambda cell: cell.cut.count,
}
"""Answers of a cell that have it; None where the judge does not say."""


def outcome_of(test: PairedTest) -> Outcome:
    """What a test compares."""
    if isinstance(test, PooledTest):
        return test.outcome
    names: dict[type[PairedTest], Outcome] = {
        Pair: "refused", HarmPair: "harm", BrokenPair: "broken", CutPair: "cut",
    }  # fmt: skip
    return names[type(test)]


def changes(test: PairedTest) -> tuple[int, int]:
    """Requests that gain what is compared, and that lose it."""
    if isinstance(test, Pair):
        return test.newly_refused, test.newly_answered
    if isinstance(test, HarmPair):
        return test.newly_harmful, test.no_longer_harmful
    if isinstance(test, BrokenPair):
        return test.newly_broken, test.no_longer_broken
    if isinstance(test, CutPair):
        return test.newly_cut, test.no_longer_cut
    if isinstance(test, PooledTest):
        return test.gained, test.lost
    raise TypeError(type(test))
