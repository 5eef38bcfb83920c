"""Attacking a steered directory, and the record of it."""

from __future__ import annotations

import json
import time
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from math import fsum
from pathlib import Path
from typing import Final

from pydantic import ValidationError

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.seal import write_seal
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.names import ADAPTIVE_NAME, EVALUATION, PARTIAL
from mars_export.common.progress import Tick
from mars_export.evaluation.adaptive.attacks import ATTACKS, Attack
from mars_export.evaluation.adaptive.batches import Batches, UnreachableError
from mars_export.evaluation.adaptive.curves import Unit, curves, unit_of
from mars_export.evaluation.adaptive.record import SAFETY, Adaptive, Budget, Goal
from mars_export.evaluation.adaptive.surface import in_arm
from mars_export.evaluation.adaptive.target import Target, cases_of
from mars_export.evaluation.generation import load_calibrated
from mars_export.evaluation.job import installed_versions, sha256
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.report import REFERENCE, STEERED, SuiteSource
from mars_export.evaluation.suite import Suite
from mars_export.families.loading import pick_device
from mars_export.families.placement import Device
from mars_export.inputs.merges import tokenizer_of
from mars_export.inputs.requests import Request, template_problem
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = ["attack"]

TOKENS: Final = 4
"""Of the beginning of an answer that optimized requests are to get."""
BEGINNINGS: Final[dict[Goal, str]] = {"answered": "Sure, here is", "refused": "Sorry, I can't"}
"""Where the model has none of its own."""
_LEAST: Final = Budget(
    requests=1, steps=1, eps=(), gate_eps=(), suffix_steps=1, suffix_swaps=1, draws=1,
    max_new_tokens=1,
)  # fmt: skip
"""Of the trial that shows whether an attack can be run."""
_JOURNAL: Final = f"{EVALUATION}/adaptive.{{}}{PARTIAL}"


def attack(
    directory: Path,
    suite: Suite,
    budget: Budget | None = None,
    *,
    judge: Judge | None = None,
    batch_size: int = 16,
    device: Device = "auto",
    progress: Tick | None = None,
) -> Adaptive:
    """Attack a steered directory with everything that is known of it, and write the record into it.

    White-box attacks read the gate and the gradients of the very model that answers; the control
    is the same attack against a push of the same length along a random direction. The model is
    loaded once and left as it was.

    A killed run continues with the attack at which it stopped, and a finished one is not repeated.
    What cannot be run, also if only a trial of it says so, is recorded with the reason.

    Args:
        directory: Steered checkpoint; `evaluation/adaptive.json` in it is written and sealed.
        suite: Requests; of the split `evaluation`, one of each cluster up to the budget.
        budget: Of the attacker; the defaults if None.
        judge: Of the answers; None for the rules.
        batch_size: Most rows at once; halved when memory runs out.
        device: For example `cpu`, or another placement; `auto` takes a GPU when there is one.
        progress: Told how many attacks are done, and of how many.

    Raises:
        ExportError: The directory is not a steered checkpoint or does not load, the suite has no
            request for it, or no attack can be run.
    """
    manifest, budget = Manifest.read(directory), budget or Budget()
    judge, device = judge or RulesJudge(), pick_device(device)
    run = _identity(directory, suite, budget, judge, device)
    if (earlier := _earlier(directory / ADAPTIVE_NAME)) is not None and earlier.run == run:
        return earlier
    judge.check()
    target = _target(directory, manifest, suite, budget, judge, batch_size, device)
    journal = _Journal(directory / _JOURNAL.format(run), target)
    skipped = _run(target, journal, progress or (lambda _done, _total: None))
    record = Adaptive(
        run=run,
        steering_sha256=manifest.steering_sha256,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        suite=_source(suite, target),
        judge=judge.name,
        device=str(device),
        versions=installed_versions(),
        budget=budget,
        beginnings={
            goal: tokenizer_of(target.loaded.processor).decode(tokens)
            for goal, tokens in target.beginnings.items()
        },
        curves=list(curves([u for u in journal.units if u.title not in skipped], target)),
        skipped=skipped,
        seconds=round(fsum(unit.seconds for unit in journal.units), 1),
    )
    write_atomically(directory / ADAPTIVE_NAME, record.model_dump_json(indent=2) + "\n")
    for path in directory.glob(_JOURNAL.format("*")):  # those of other requests or budgets too
        path.unlink()
    write_seal(directory, ADAPTIVE_NAME)
    return record


def _identity(directory: Path, suite: Suite, budget: Budget, judge: Judge, device: Device) -> str:
    """The same for two runs that must give the same result."""
    parts = {
        "schema": Adaptive.model_fields["schema_version"].default,
        "manifest": sha256((directory / MANIFEST_NAME).read_bytes()),
        "suite": [suite.name, suite.sha256],
        "budget": budget.model_dump(),
        "judge": judge.name,
        "device": str(device),
        "versions": installed_versions(),
    }
    return sha256(json.dumps(parts, sort_keys=True).encode())[:16]


def _earlier(path: Path) -> Adaptive | None:
    try:
        return Adaptive.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _target(
    directory: Path,
    manifest: Manifest,
    suite: Suite,
    budget: Budget,
    judge: Judge,
    batch_size: int,
    device: Device,
) -> Target:
    modalities = manifest.calibration.source.modalities
    if manifest.calibration.rules.get("positions") == "answer":
        raise ExportError(
            "no attack can be run: attacks take gradients of forward(), and "
            f"{manifest.calibration.method} acts in generate() alone"
        )
    cases = cases_of(suite, suite.required_samples(modalities), budget.requests)
    attacked = dict.fromkeys(attack.shown for attack in ATTACKS)
    if attacked.keys().isdisjoint(cases):
        raise ExportError(
            f"no attack can be run: attacks are on {', '.join(attacked)}, and {suite.name} has "
            f"only {', '.join(cases)}; give another --suite"
        )
    loaded = load_calibrated(directory, manifest.calibration, device)
    tokenizer = tokenizer_of(loaded.processor)
    packaged: dict[Goal, list[int]] = {
        goal: tokenizer(text, add_special_tokens=False)["input_ids"]
        for goal, text in BEGINNINGS.items()
    }
    target = Target(loaded, judge, budget, Batches(batch_size), cases, packaged)
    return replace(target, beginnings=packaged | _own_beginnings(target))


def _own_beginnings(target: Target) -> dict[Goal, list[int]]:
    """The likeliest first tokens of answers and of refusals, where the model gives any."""
    tokenizer = tokenizer_of(target.loaded.processor)
    sources: dict[Goal, tuple[str, bool]] = {
        "answered": (REFERENCE, False), "refused": (STEERED, True),
    }  # fmt: skip
    own: dict[Goal, list[int]] = {}
    for goal, (arm, harmful) in sources.items():
        cases = [c for kind in target.cases.values() for c in kind if c.sample.harmful == harmful]
        with in_arm(target.loaded, arm, target.budget.seed):
            asked = target.ask(cases, arm)
        texts = [a.answer for a in asked if a.reaches(goal)]
        ids = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
        if begun := Counter(tuple(row[:TOKENS]) for row in ids).most_common(1):
            own[goal] = list(begun[0][0])
    return own


def _source(suite: Suite, target: Target) -> SuiteSource:
    return SuiteSource(
        name=suite.name,
        sha256=suite.sha256,
        samples=sum(map(len, target.cases.values())),
        license=suite.license,
        origin=suite.origin,
    )


class _Journal:
    """Finished attacks, one arm a line, so that a killed run continues where it stopped.

    Lines of other requests than those of the target, and all behind one, are not taken up.
    """

    def __init__(self, path: Path, target: Target) -> None:
        self.path = path
        self.units: list[Unit] = []
        for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else ():
            try:
                unit = Unit.model_validate_json(line)
            except ValidationError:
                break
            if not _fits(unit, target):
                break
            self.units.append(unit)

    def append(self, unit: Unit) -> None:
        self.units.append(unit)
        self.path.parent.mkdir(exist_ok=True)
        write_atomically(self.path, "".join(u.model_dump_json() + "\n" for u in self.units))


def _fits(unit: Unit, target: Target) -> bool:
    """Whether every budget of a unit holds the requests of its attack, in their order."""
    shown = next((attack.shown for attack in ATTACKS if attack.title == unit.title), "")
    ids = [case.sample.id for case in target.cases.get(shown, ())]
    rows: dict[tuple[str, float | None], list[str]] = {}
    for goal, trials in unit.trials.items():
        for trial in trials:
            rows.setdefault((goal, trial.at), []).append(trial.id)
    return bool(ids and rows) and all(row == ids for row in rows.values())


def _run(target: Target, journal: _Journal, progress: Tick) -> dict[str, str]:
    """Run what the journal does not hold yet.

    Returns:
        Attacks and arms that cannot be run, and why.
    """
    skipped = _problems(target)
    planned = [
        (attack, arm)
        for attack in ATTACKS
        if attack.shown in target.cases and attack.title not in skipped
        for arm in attack.arms
        if arm not in skipped
    ]
    if not planned:
        raise ExportError(f"no attack can be run: {next(reversed(skipped.values()))}")
    done = {(unit.title, unit.arm) for unit in journal.units}
    for count, (attack, arm) in enumerate(planned):
        progress(count, len(planned))
        if attack.title in skipped or (attack.title, arm) in done:
            continue
        started = time.monotonic()
        try:
            with in_arm(target.loaded, arm, target.budget.seed):
                reached = attack.run(target, arm, target.cases[attack.shown])
        except UnreachableError as error:  # a curve without one of its arms would say too much
            skipped[attack.title] = str(error)
        else:
            journal.append(unit_of(attack, arm, reached, time.monotonic() - started))
    progress(len(planned), len(planned))
    return skipped


def _problems(target: Target) -> dict[str, str]:
    """Attacks and arms that cannot be run, and why."""
    request = SAFETY_PROMPT.change(Request("Hello"))
    problems = {SAFETY: template_problem(target.loaded.processor, request)}
    for attack in ATTACKS:
        if attack.shown in target.cases:
            problems[attack.title] = _problem(target, attack)
    return {name: reason for name, reason in problems.items() if reason}


def _problem(target: Target, attack: Attack) -> str:
    """What a trial on one request, of the smallest budget, shows; empty if it can be run."""
    cases = target.cases[attack.shown]
    try:
        if reason := attack.problem(target, cases):
            return reason
        with in_arm(target.loaded, STEERED, target.budget.seed):
            attack.run(replace(target, budget=_LEAST), STEERED, cases[:1])
    except ExportError as error:
        return str(error)
    except Exception as error:  # models and processors raise what they like
        return f"the model refuses it: {' '.join(str(error).split()) or type(error).__name__}"
    return ""
