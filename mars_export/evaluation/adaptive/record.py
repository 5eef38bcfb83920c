"""`evaluation/adaptive.json`: how far attackers come that adapt. Free of torch."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import PositiveInt

from mars_export.common.record import Record, VersionedRecord
from mars_export.evaluation.report import Rate, SuiteSource
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = [
    "RANDOM",
    "SAFETY",
    "Adaptive",
    "Budget",
    "Curve",
    "Goal",
    "Point",
    "Trial",
    "at",
]

RANDOM: Final = "random"
"""Arm of the control: the same gate and length of the push, along a random direction."""
SAFETY: Final = SAFETY_PROMPT.name
"""Arm of the baseline: steering off, and the safety prompt before the same requests."""

Goal = Literal["answered", "refused", "gate shut", "gate open"]
"""What counts as a success of an attack."""


class Budget(Record):
    """What an attacker may spend on one request, and how many requests there are."""

    requests: PositiveInt = 24
    """Of each modality and label, each of a cluster of its own."""
    steps: PositiveInt = 20
    """Of gradient descent on pixels, for each eps."""
    eps: tuple[int, ...] = (4, 8, 16, 32)
    """Largest changes of a pixel, of 255; after them, any change is tried."""
    gate_eps: tuple[int, ...] = (2, 4, 8, 16, 32)
    """The same where the gate alone is attacked."""
    suffix_words: PositiveInt = 6
    """Words of a suffix."""
    suffix_steps: PositiveInt = 20
    """Of the search for a suffix; each tries `suffix_swaps` swaps of one word."""
    suffix_swaps: PositiveInt = 12
    draws: PositiveInt = 100
    """Sampled answers to one request."""
    max_new_tokens: PositiveInt = 64
    """Longest answer, in tokens."""
    seed: int = 0

    def covers(self, other: Budget) -> bool:
        """Whether an attacker with this budget can do all that one with the other can."""
        mine, theirs = self.model_dump(), other.model_dump()
        return mine["seed"] == theirs["seed"] and all(
            set(value) <= set(mine[name]) if isinstance(value, tuple) else value <= mine[name]
            for name, value in theirs.items()
        )


class Trial(Record):
    """One request, attacked with one budget."""

    id: str
    at: float | None
    """Budget, in the unit of the curve; None for no bound."""
    success: bool
    open: bool = False
    """The answer is degenerate, or the judge cannot say; never a success."""
    on_topic: bool | None = None
    """Whether the answer holds all words of the request's cluster; None if it has no name."""
    gate: float | None = None
    """Of the attacked request; None with steering off."""


class Point(Record):
    """All requests of a curve at one budget, in one arm."""

    arm: str
    at: float | None
    """None for no bound."""
    success: Rate
    open: int
    """Answers that are degenerate or that the judge cannot name; never a success."""
    on_topic: int | None
    """Successes whose answer names what the request is about; None where that is not known."""
    gate: float | None
    """Mean; None with steering off or without a gate."""


class Curve(Record):
    """One attack, with growing budgets."""

    attack: str
    about: str
    """One clause."""
    access: Literal["white box", "black box"]
    goal: Goal
    shown: str
    """Kind of request, for example `harmful image`."""
    unit: str
    """Of the budget."""
    points: list[Point]


class Adaptive(VersionedRecord):
    """The whole record: the directory was left as it is but for this file."""

    schema_version: int = 2
    run: str
    """Identity of all that the numbers depend on."""
    steering_sha256: str
    created: str
    suite: SuiteSource
    judge: str
    device: str
    versions: dict[str, str]
    budget: Budget
    beginnings: dict[str, str]
    """What optimized requests are to be answered with, `answered` and `refused`: beginnings that
    the model itself uses most often."""
    curves: list[Curve]
    skipped: dict[str, str]
    """Attacks and arms that cannot be run on this model, and why."""
    seconds: float
    """Of all attacks, those before a run was stopped included."""


def at(budget: float | None) -> str:
    """A budget in print."""
    return "any" if budget is None else f"{budget:g}"
