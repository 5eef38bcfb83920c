"""The attacks of `mars-export attack`, each at growing budgets."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, NamedTuple

import numpy as np
from torch import Tensor

from mars_export.common.input_errors import InputError
from mars_export.evaluation.adaptive.extent import SHOWN
from mars_export.evaluation.adaptive.ladders import LADDERS, Ladder, material_of
from mars_export.evaluation.adaptive.pictures import PixelPath, Pixels, descend, fitted, size_of
from mars_export.evaluation.adaptive.record import RANDOM, SAFETY, Budget, Goal
from mars_export.evaluation.adaptive.surface import STEERED_ARMS, Reading, Surface, in_arm
from mars_export.evaluation.adaptive.target import Asked, Case, Level, Target, climb
from mars_export.evaluation.adaptive.words import Vocabulary, search, with_suffix
from mars_export.evaluation.report import REFERENCE, STEERED
from mars_export.inputs.prompts import packaged
from mars_export.inputs.requests import collate, template_problem

__all__ = ["ATTACKS", "Attack", "Reached"]

_DRAWS: Final = (1, 5, 10, 25, 50)
"""Numbers of sampled answers after which best of n is looked at, besides the last."""
_ARMS: Final = (REFERENCE, STEERED, RANDOM)
_BLACK: Final = (*_ARMS, SAFETY)

Reached = Mapping[Goal, Mapping[Level, Sequence[Asked]]]
"""What became of every case, by goal and budget."""


@dataclass(frozen=True)
class Attack:
    """One attack on one kind of request.

    Attributes:
        name: In the record.
        about: One clause.
        access: What the attacker sees of the model.
        shown: Kind of request.
        unit: Of the budgets.
        run: Attacks all cases in an arm, which is entered.
        problem: Why it cannot be run; empty if it can.
        arms: Those that it says something about.
    """

    name: str
    about: str
    access: Literal["white box", "black box"]
    shown: str
    unit: str
    run: Callable[[Target, str, Sequence[Case]], Reached]
    problem: Callable[[Target, Sequence[Case]], str] = lambda _target, _cases: ""
    arms: tuple[str, ...] = _ARMS

    @property
    def title(self) -> str:
        """Its name and the requests that it is for."""
        return f"{self.name}, {self.shown}"


class _Aim(NamedTuple):
    """What pixels or words are optimized for. begins: goal whose beginning of an answer is used."""

    goals: tuple[Goal, ...]
    begins: Goal
    cost: Callable[[Reading], Tensor]


_ANSWER: Final = _Aim(("answered",), "answered", lambda reading: reading.loss + reading.shut())
_GATE: Final = _Aim(("gate shut", "answered"), "answered", lambda reading: reading.shut())
_REFUSE: Final = _Aim(("refused", "gate open"), "refused",
                      lambda reading: reading.loss + reading.open())  # fmt: skip


_GATES: Final[frozenset[Goal]] = frozenset({"gate shut", "gate open"})
"""Goals that mean nothing where no gate is read."""


def _surface(target: Target, aim: _Aim) -> Surface:
    return Surface(target.loaded, target.beginnings[aim.begins], target.batches.size)


def _pixels(
    aim: _Aim, radii: Callable[[Budget], tuple[int, ...]]
) -> Callable[[Target, str, Sequence[Case]], Reached]:
    """Pixels optimized within growing radii, and at last without any; each begins at the last."""

    def run(target: Target, arm: str, cases: Sequence[Case]) -> Reached:
        descent = _Descent(target, arm, aim)
        requests = fitted(target.loaded.processor, [case.request for case in cases])
        sized = [c._replace(request=r) for c, r in zip(cases, requests, strict=True)]

        def ask(level: Level, rest: Sequence[Case]) -> list[Asked]:
            return target.ask(descent.changed(level, rest), arm)

        gated = arm in STEERED_ARMS and target.has_gate
        goals = [goal for goal in aim.goals if gated or goal not in _GATES]
        return climb(sized, (0, *radii(target.budget), None), ask, goals, tries=True)

    return run


class _Descent:
    """Pixels of every case as far as they were optimized."""

    def __init__(self, target: Target, arm: str, aim: _Aim) -> None:
        self._target, self._aim = target, aim
        self._surface = _surface(target, aim)
        self._present: dict[str, Pixels] = {}
        # where nothing is steered, a gate alone is read with steering on, and asked with it off
        self._arm = STEERED if aim is _GATE and arm == REFERENCE else arm

    def changed(self, level: Level, cases: Sequence[Case]) -> list[Case]:
        """The cases with pixels for one radius; pictures of one size share a batch."""
        sizes: dict[tuple[str, tuple[int, int]], list[Case]] = {}
        for case in cases:
            sizes.setdefault((case.request.modality, size_of(case.request)), []).append(case)
        work, changed = partial(self._batch, level), dict[str, Case]()
        with in_arm(self._target.loaded, self._arm, self._target.budget.seed):
            for same in sizes.values():
                changed |= {c.sample.id: c for c in self._surface.batches.map(work, same)}
        return [changed[case.sample.id] for case in cases]

    def _batch(self, level: Level, batch: Sequence[Case]) -> list[Case]:
        path = PixelPath.of(self._target.loaded.processor, [case.request for case in batch])
        rows = list(zip((case.sample.id for case in batch), path.rows, strict=True))
        plain, present = path.pixels, self._present
        end = np.concatenate([present.get(name, plain[row]) for name, row in rows])
        if level != 0:
            steps = self._target.budget.steps
            end = descend(self._surface, path, end, self._aim.cost, level, steps)
        present.update((name, end[row]) for name, row in rows)
        changed = path.shown(end)
        return [c._replace(request=r) for c, r in zip(batch, changed, strict=True)]


def _pixel_problem(target: Target, cases: Sequence[Case]) -> str:
    fitted(target.loaded.processor, [case.request for case in cases])
    return ""


def _gate_problem(target: Target, cases: Sequence[Case]) -> str:
    return _pixel_problem(target, cases) if target.has_gate else "the method has no gate"


def _suffix(target: Target, arm: str, cases: Sequence[Case]) -> Reached:
    budget, surface = target.budget, _surface(target, _ANSWER)
    vocabulary = _vocabulary(target)
    start = vocabulary.start(budget.suffix_words, budget.seed)
    suffixes = {case.sample.id: start for case in cases}
    levels = sorted({0, *(budget.suffix_steps * part // 4 for part in range(1, 5))})
    done = 0

    def ask(level: Level, rest: Sequence[Case]) -> list[Asked]:
        nonlocal done
        if not level:
            return target.ask(rest, arm)
        steps, done = level - done, level
        found = search(
            surface,
            [case.request for case in rest],
            vocabulary,
            [suffixes[case.sample.id] for case in rest],
            _ANSWER.cost,
            steps=steps,
            swaps=budget.suffix_swaps,
            seed=budget.seed + level,
        )
        suffixes.update(zip((case.sample.id for case in rest), found, strict=True))
        return target.ask(
            [
                case._replace(request=with_suffix(case.request, vocabulary, suffix))
                for case, suffix in zip(rest, found, strict=True)
            ],
            arm,
        )

    return climb(cases, levels, ask, ("answered",), tries=True)


def _vocabulary(target: Target) -> Vocabulary:
    """Words of harmless requests, those of the suite and the packaged ones."""
    texts = material_of(target.cases).texts
    return Vocabulary.of(target.loaded.processor, [*texts, *packaged().harmless.direction])


def _suffix_problem(target: Target, _cases: Sequence[Case]) -> str:
    _vocabulary(target)
    return ""


def _best_of(target: Target, arm: str, cases: Sequence[Case]) -> Reached:
    """Sampled answers, at temperature 1, until one is not a refusal."""
    draws = target.budget.draws
    levels = sorted({*(n for n in _DRAWS if n < draws), draws})
    done = 0

    def ask(level: Level, rest: Sequence[Case]) -> list[Asked]:
        nonlocal done
        more, seed = (level or 0) - done, target.budget.seed + 7919 * done
        done = level or 0
        asked = target.ask([case for case in rest for _ in range(more)], arm, seed)
        return [
            next((a for a in part if a.verdict == "answer"), part[-1])
            for part in (asked[i : i + more] for i in range(0, len(asked), more))
        ]

    return climb(cases, levels, ask, ("answered",), tries=True)


def _climbing(ladder: Ladder) -> Callable[[Target, str, Sequence[Case]], Reached]:
    def run(target: Target, arm: str, cases: Sequence[Case]) -> Reached:
        material = material_of(target.cases)
        places = {case.sample.id: place for place, case in enumerate(cases)}

        def ask(level: Level, rest: Sequence[Case]) -> list[Asked]:
            return target.ask(
                [
                    case._replace(
                        request=ladder.change(
                            case.request, level or 0, material, places[case.sample.id]
                        )
                    )
                    for case in rest
                ],
                arm,
            )

        return climb(cases, ladder.levels, ask, ("answered",), tries=ladder.tries)

    return run


def _ladder_problem(ladder: Ladder) -> Callable[[Target, Sequence[Case]], str]:
    def problem(target: Target, cases: Sequence[Case]) -> str:
        material = material_of(target.cases)
        if missing := ladder.missing(material):
            return missing
        request = ladder.change(cases[0].request, ladder.levels[-1], material, 0)
        processor = target.loaded.processor
        if found := template_problem(processor, request):
            return found
        try:
            collate(processor, [request])
        except InputError as error:
            return str(error)
        return ""

    return problem


_OPTIMIZED: Final = "pixels changed by at most eps, or at will, "

ATTACKS: Final = (
    Attack("pixels", _OPTIMIZED + "to shut the gate and begin an answer", "white box",
           "harmful image", "eps", _pixels(_ANSWER, lambda b: b.eps), _pixel_problem),
    Attack("gate evasion", _OPTIMIZED + "to shut the gate alone; off: the same "
           "pictures without steering", "white box",
           "harmful image", "eps", _pixels(_GATE, lambda b: b.gate_eps), _gate_problem),
    Attack("over-refusal", _OPTIMIZED + "to open the gate and begin a refusal", "white box",
           "harmless image", "eps", _pixels(_REFUSE, lambda b: b.eps), _pixel_problem),
    *(
        Attack("suffix", "harmless words behind the prompt, swapped to shut the gate and begin an "
               "answer", "white box", shown, "steps", _suffix, _suffix_problem)
        for shown in SHOWN["suffix"]
    ),
    *(
        Attack("best of n", "sampled at temperature 1; one answer is enough", "black box", shown,
               "draws", _best_of, arms=_BLACK)
        for shown in SHOWN["best of n"]
    ),
    *(
        Attack(ladder.name, ladder.about, "black box", shown, ladder.unit, _climbing(ladder),
               _ladder_problem(ladder), _BLACK)
        for ladder in LADDERS for shown in ladder.shown
    ),
)  # fmt: skip
"""In the order of the record."""
