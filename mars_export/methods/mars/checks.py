"""Whether the decisions hold on prompts that had no part in them, and what was missed.

A3.n are sections of docs/method.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from mars_export.calibration.measurements import Measurements, Reading
from mars_export.common.vocabulary import Modality, plural
from mars_export.methods.mars.material import Kind, Material, check_readings
from mars_export.methods.mars.origin import (
    CONFIDENCE,
    fewest_prompts,
    one_of_each_prompt,
    surprising,
    upper_bound,
)
from mars_export.methods.mars.record import (
    KL_LIMIT,
    OPEN_LIMIT,
    Check,
    Margin,
    MarsRecord,
)
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.strength import COMPRESSED, Effect, effect
from mars_export.methods.mars.view import LayerView

__all__ = ["Outcome", "check", "findings", "missed"]


@dataclass(frozen=True)
class Outcome:
    """What the check prompts say.

    Attributes:
        checks: Of every modality `all`, then each condition.
        margins: Of every modality.
    """

    checks: list[Check]
    margins: list[Margin]


def check(baseline: Measurements, view: LayerView, rule: Rule, material: Material) -> Outcome:
    """Steer the check prompts in every condition."""
    kinds, harmful = check_readings(baseline, material)
    left_out = {
        (c.modality, c.name) for c in view.conditions if c.treatment in ("left out", "refused")
    }
    checks: list[Check] = []
    for modality, several in kinds.items():
        several = [kind for kind in several if len(kind.answered)]
        done = {kind.name: effect(baseline, view, rule, kind.answered) for kind in several}
        lines = [_line(modality, kind, done[kind.name]) for kind in several]
        counted = [k for k in several if not k.divided and (modality, k.name) not in left_out]
        checks += [_all(modality, counted, done), *lines] if lines else []
    margins = [_margin(view, m, reading) for m, reading in harmful.items() if len(reading)]
    return Outcome(checks, margins)


def _line(modality: Modality, kind: Kind, done: Effect) -> Check:
    n, count = len(kind.answered), int(done.open.sum())
    return Check(
        name=kind.name, modality=modality, n=n, open=count, bound=upper_bound(count, n),
        kl=done.kl, refusals=done.refusals,
    )  # fmt: skip


def _all(modality: Modality, counted: Sequence[Kind], done: Mapping[str, Effect]) -> Check:
    """The conditions that the origin allows for together: of each prompt one request."""
    drawn = one_of_each_prompt(
        [done[kind.name].open for kind in counted], [kind.answered.prompts for kind in counted]
    )
    n, count = len(drawn), int(drawn.sum())
    return Check(
        name="all",
        modality=modality,
        n=n,
        open=count,
        bound=upper_bound(count, n),
        kl=max((done[kind.name].kl for kind in counted), default=0.0),
        refusals=sum(done[kind.name].refusals for kind in counted),
    )


def _margin(view: LayerView, modality: Modality, reading: Reading) -> Margin:
    above = (view.placed(reading) - view.origin[modality]) / view.separation
    low, median = above.quantile(torch.tensor([0.1, 0.5], dtype=torch.float64)).tolist()
    return Margin(
        modality=modality, n=len(reading), open=int((above > 0).sum()), low=low, median=median
    )


def missed(record: MarsRecord, squeezed: Sequence[Modality]) -> list[str]:
    """Goals that were not reached, one sentence each."""
    sentences = [f"Layer {record.layer}, set by hand, fails a check: {why}."
                 for why in record.layer_failures]  # fmt: skip
    if record.reached is not None and record.goal is not None and record.reached < record.goal:
        sentences.append(
            "Steered harmful text with a neutral stimulus has refusal log-odds of "
            f"{record.reached:.2f}; the goal, set by the same text alone, is {record.goal:.2f}."
        )
    sentences += [
        f"{_beside(m)} harmless requests lie so near harmful text that the gate cannot be kept "
        "shut for them: expect over-refusal."
        for m in squeezed
    ]
    sentences += [
        f"{_beside(margin.modality)} the gate stays shut for half of the harmful text."
        for margin in record.margins
        if margin.median <= 0
    ]
    sentences += [*_disturbed(record), *_unchecked(record)]
    few = min(record.confidence.values(), default=CONFIDENCE)
    if few < CONFIDENCE:
        sentences.append(
            f"That at most {OPEN_LIMIT:.0%} of harmless requests open the gate is known with "
            f"confidence {few:.0%} only, as there are few harmless prompts; {CONFIDENCE:.0%} needs "
            f"{4 * fewest_prompts()} that the model answers."
        )
    return sentences


def _disturbed(record: MarsRecord) -> list[str]:
    """Harmless check requests that open the gate too often, or change too much."""
    sentences = []
    reported = {(c.modality, c.name) for c in record.conditions
                if c.treatment in ("left out", "refused")}  # fmt: skip
    for line in record.checks:
        if (line.modality, line.name) in reported:
            continue
        what = f"{_beside(line.modality)} {_named(line)}"
        share = line.open > OPEN_LIMIT * line.n
        if share and (line.name == "all" or surprising(line.open, line.n)):
            sentences.append(
                f"{what} open the gate in {line.open} of {line.n} cases (at most "
                f"{line.bound:.1%}); the goal is {OPEN_LIMIT:.0%}."
            )
        if line.name != "all" and not line.kl <= KL_LIMIT:
            sentences.append(
                f"{what} change by {line.kl:.2f} nats in the first token; the goal is {KL_LIMIT:g}."
            )
    return sentences


def _unchecked(record: MarsRecord) -> list[str]:
    """What could not be checked, as the model handles no check prompt as its label says."""
    done = (("harmless", "answers", record.checks), ("harmful", "refuses", record.margins))
    return [
        f"{_beside(modality)} nothing {label} was checked: the model {handles} none of the "
        "requests that are kept for it."
        for label, handles, lines in done
        for modality in record.shift
        if modality not in {line.modality for line in lines}
    ]


def findings(record: MarsRecord) -> list[str]:
    """What a user should know of the model, one sentence each."""
    opened = {(line.modality, line.name): line for line in record.checks}
    sentences = []
    for c in record.conditions:
        seen = opened.get((c.modality, c.name))
        if c.treatment == "left out":
            cases = f": open in {seen.open} of {seen.n} checked" if seen else ""
            sentences.append(
                f"{_beside(c.modality)} harmless requests of the kind '{c.name}' lie too near "
                f"harmful text for the gate to allow for them{cases}; they may be refused."
            )
        if c.refused > c.n:
            sentences.append(
                f"The unsteered model itself refuses {c.refused} of {c.n + c.refused} harmless "
                f"requests of the kind '{c.name}' ({c.modality})."
            )
    sentences += [
        f"The requests to tune on change nothing for {plural(tuned.modality)}: {tuned.reason}."
        for tuned in record.tuned
        if not tuned.applied
    ]
    for modality, kept in record.compression.items():
        if kept < COMPRESSED:
            scaled = record.harmful[modality] != record.harmful["text"]
            sentences.append(
                f"{_beside(modality)} harmful and harmless text lie {kept:.0%} as far apart as "
                f"alone; the scale of the gate {'was' if scaled else 'was not'} corrected, as that "
                f"{'raised' if scaled else 'did not raise'} refusal of held-out harmful text."
            )
    return sentences


def _beside(modality: Modality) -> str:
    return "As text," if modality == "text" else f"Beside {plural(modality)},"


def _named(line: Check) -> str:
    if line.name == "all":
        return "harmless prompts, all conditions together,"
    return f"harmless requests of the kind '{line.name}'"
