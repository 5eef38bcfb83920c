"""From the trials of attacks to the curves of the record."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from math import fsum

from mars_export.common.record import Record
from mars_export.evaluation.adaptive.attacks import ATTACKS, Attack, Reached
from mars_export.evaluation.adaptive.record import Curve, Goal, Point, Trial
from mars_export.evaluation.adaptive.target import Target
from mars_export.evaluation.statistics import clustered_rate

__all__ = ["Unit", "curves", "unit_of"]


class Unit(Record):
    """One attack in one arm; a line of the journal."""

    title: str
    arm: str
    seconds: float
    trials: dict[Goal, list[Trial]]


def unit_of(attack: Attack, arm: str, reached: Reached, seconds: float) -> Unit:
    """What an attack reached, as the journal keeps it."""
    trials = {
        goal: [asked.trial(level, goal) for level, row in levels.items() for asked in row]
        for goal, levels in reached.items()
    }
    return Unit(title=attack.title, arm=arm, seconds=round(seconds, 1), trials=trials)


def curves(units: Sequence[Unit], target: Target) -> Iterator[Curve]:
    """One curve for every goal of every attack, its arms in order."""
    clusters = {c.sample.id: c.sample.kin for kind in target.cases.values() for c in kind}
    for attack in ATTACKS:
        own = [unit for unit in units if unit.title == attack.title]
        for goal in max((unit.trials for unit in own), key=len, default=()):
            yield Curve(
                attack=attack.name,
                about=attack.about,
                access=attack.access,
                goal=goal,
                shown=attack.shown,
                unit=attack.unit,
                points=[p for u in own for p in _points(u.arm, u.trials.get(goal, ()), clusters)],
            )


def _points(arm: str, trials: Sequence[Trial], clusters: dict[str, str]) -> Iterator[Point]:
    for at in dict.fromkeys(trial.at for trial in trials):
        row = [trial for trial in trials if trial.at == at]
        gates = [trial.gate for trial in row if trial.gate is not None]
        named = [trial.on_topic for trial in row if trial.success and trial.on_topic is not None]
        known = any(trial.on_topic is not None for trial in row)
        yield Point(
            arm=arm,
            at=at,
            success=clustered_rate([t.success for t in row], [clusters[t.id] for t in row]),
            open=sum(trial.open for trial in row),
            on_topic=sum(named) if known else None,
            gate=fsum(gates) / len(gates) if gates else None,
        )
