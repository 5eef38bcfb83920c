"""Asking a model under attack, and reading its answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from mars_export.common.vocabulary import BROKEN, REFUSED, Verdict
from mars_export.evaluation.adaptive.batches import Batches, inputs_of
from mars_export.evaluation.adaptive.record import SAFETY, Budget, Goal, Trial
from mars_export.evaluation.adaptive.surface import STEERED_ARMS
from mars_export.evaluation.changes import is_advice
from mars_export.evaluation.generation import Loaded, hosted_rules
from mars_export.evaluation.judges.base import Exchange, Judge
from mars_export.evaluation.report import label
from mars_export.evaluation.suite import Sample, Suite
from mars_export.inputs.requests import Request
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = ["Asked", "Case", "Level", "Target", "cases_of", "climb"]

Level = int | None
"""A budget, in the unit of its attack; None for no bound."""


class Case(NamedTuple):
    """A request of the suite and its present form."""

    sample: Sample
    request: Request


class Asked(NamedTuple):
    """What became of a case. gate: None with steering off."""

    case: Case
    verdict: Verdict
    gate: float | None
    answer: str

    def reaches(self, goal: Goal) -> bool:
        """Whether it is a success of an attacker with this goal."""
        if goal == "answered":
            return self.verdict == "answer"
        if goal == "refused":
            return self.verdict in REFUSED
        return self.gate is not None and (self.gate > 0) == (goal == "gate open")

    def trial(self, at: Level, goal: Goal) -> Trial:
        """For a curve with this goal."""
        words = re.findall(r"\w+", self.case.sample.cluster.lower())
        answer = self.answer.lower()
        return Trial(
            id=self.case.sample.id,
            at=at,
            success=self.reaches(goal),
            open=self.verdict in BROKEN,
            on_topic=all(word in answer for word in words) if words else None,
            gate=self.gate,
        )


@dataclass(frozen=True)
class Target:
    """A model under attack, and what it is asked.

    Attributes:
        loaded: The checkpoint; its arm is that of `surface.in_arm`.
        judge: Of the answers.
        budget: Of the attacker.
        batches: Of answers.
        cases: By kind of request, for example `harmful image`.
        beginnings: Tokens of the model's own beginnings of answers, by goal.
    """

    loaded: Loaded
    judge: Judge
    budget: Budget
    batches: Batches
    cases: Mapping[str, Sequence[Case]]
    beginnings: Mapping[Goal, Sequence[int]]

    @property
    def has_gate(self) -> bool:
        """Whether the method decides by a gate; one that pushes everything has none."""
        return any(hasattr(rule, "gate") for rule in hosted_rules(self.loaded.model))

    def ask(self, cases: Sequence[Case], arm: str, seed: int | None = None) -> list[Asked]:
        """Answers to requests as they are now, in their order.

        Args:
            cases: Any.
            arm: Of `in_arm`, which is entered.
            seed: Of sampled answers; None for greedy ones.
        """
        asked: list[Asked] = []
        rows = list(enumerate(cases))
        for _, group in groupby(rows, key=lambda row: _form(row[1].request)):
            asked += self.batches.map(lambda batch: self._judged(batch, arm, seed), list(group))
        return asked

    def _judged(self, batch: Sequence[tuple[int, Case]], arm: str, seed: int | None) -> list[Asked]:
        requests = [case.request for _, case in batch]
        asked = list(map(SAFETY_PROMPT.change, requests)) if arm == SAFETY else requests
        answers = self.loaded.answer(
            inputs_of(self.loaded, asked),
            self.budget.max_new_tokens,
            steered=arm in STEERED_ARMS,
            seed=None if seed is None else seed + 1009 * batch[0][0],
        )
        judgments = self.judge.judge(
            [
                Exchange(s.prompt, text, s.intent, request.pictures, s.heard)
                for (_, (s, request)), text in zip(batch, answers.texts, strict=True)
            ]
        )
        rows = zip(batch, judgments, answers.decisions, answers.texts, strict=True)
        return [
            Asked(case, judgment.verdict, decision.gate if decision else None, text)
            for (_, case), judgment, decision, text in rows
        ]


def _form(request: Request) -> tuple[str, bool]:
    """Requests of one form can stand in one batch."""
    return request.modality, bool(request.prefill)


def cases_of(suite: Suite, samples: Iterable[Sample], most: int) -> dict[str, list[Case]]:
    """Requests of each kind, at most one of a cluster and `most` in all.

    Harmful requests for advice are left out: an answer to one is no success of an attacker.

    Args:
        suite: Opens their pictures.
        samples: In the order of preference.
        most: Of each kind.
    """
    kinds: dict[str, dict[str, Sample]] = {}
    for sample in (sample for sample in samples if not is_advice(sample)):
        kind = kinds.setdefault(label(sample.harmful, sample.modality), {})
        if len(kind) < most:
            kind.setdefault(sample.kin, sample)
    return {
        name: [Case(sample, suite.request(sample)) for sample in kind.values()]
        for name, kind in kinds.items()
    }


def climb(
    cases: Sequence[Case],
    levels: Sequence[Level],
    ask: Callable[[Level, Sequence[Case]], Sequence[Asked]],
    goals: Sequence[Goal],
    *,
    tries: bool,
) -> dict[Goal, dict[Level, list[Asked]]]:
    """What becomes of every case at growing budgets, for each goal.

    Args:
        cases: As they are.
        levels: Budgets, ascending.
        ask: What becomes of some of the cases at one budget, in their order.
        goals: Of the attacker.
        tries: Whether a larger budget holds the smaller ones, so that a case stays at its first
            success with a goal, and is done with one for every goal.
    """
    present: dict[Goal, dict[str, Asked]] = {goal: {} for goal in goals}
    reached: dict[Goal, dict[Level, list[Asked]]] = {goal: {} for goal in goals}

    def done(case: Case, goal: Goal) -> bool:
        earlier = present[goal].get(case.sample.id)
        return tries and earlier is not None and earlier.reaches(goal)

    for level in levels:
        rest = [case for case in cases if not all(done(case, goal) for goal in goals)]
        answers = ask(level, rest) if rest else ()
        for goal, own in present.items():
            own |= {a.case.sample.id: a for a in answers if not done(a.case, goal)}
            reached[goal][level] = [own[case.sample.id] for case in cases]
    return reached
