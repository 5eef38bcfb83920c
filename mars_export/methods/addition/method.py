"""The calibration of constant addition: a direction, a layer, and what the push does.

The direction is the difference in means of arXiv 2406.11717 (A3.1). Ours is the choice of the
layer: of the admissible layers with the best separability on validation text (A3.5), the one at
which the very push that ships makes harmless text be refused most.
A3.n are sections of docs/method.md.
"""

from copy import deepcopy
from typing import Final

import torch

from mars_export.calibration import directions
from mars_export.calibration.activations import Edit
from mars_export.calibration.conditions import plain_groups
from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import Measurements, Reading, measure
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.methods.addition.record import (
    AdditionOptions,
    AdditionRecord,
    Effect,
    Positions,
    Trial,
)
from mars_export.methods.addition.rule import Rule
from mars_export.methods.base import Artefact, Decision, Probe

__all__ = ["calibrate", "trials"]

_FINALISTS: Final = 5
"""Layers that are tried."""

_PROBES: Final = 2
"""Of every label and modality."""


def calibrate(data: CalibrationData, options: AdditionOptions) -> Artefact:
    """Measure the refusal direction and choose the layer at which adding it acts most.

    Raises:
        ExportError: The model has no usable text refusal, no layer of that number, or at none of
            the layers tried does the push cause refusal.
    """
    data.require_layer(options.layer)
    tried = 1 if options.layer is not None else _FINALISTS
    decision = len(data.prompts.harmless.decision)
    effects = 4 * (1 + len(data.beside)) * decision
    baseline = measure(data, tried * decision + effects)
    text = baseline.statistics
    groups = plain_groups(baseline)
    tried_layers = trials(baseline, text, options)
    best = tried_layers[0]
    if options.layer is None and options.coefficient > 0 and not best.induced > 0:
        raise UnsteerableError(
            f"Adding the direction causes no refusal: at layer {best.layer}, the best of "
            f"{len(tried_layers)} tried, the induced refusal log-odds are {best.induced:.2f}, "
            "not above 0. Choose a larger coefficient, or a base that refuses harmful text "
            "reliably."
        )
    rule = _rule(text, best.layer, options.coefficient)
    record = AdditionRecord(
        layer=best.layer,
        layer_forced=options.layer is not None,
        coefficient=options.coefficient,
        separation=float(text.separation[best.layer]),
        positions=options.positions,
        trials=tried_layers,
        refusal_tokens=baseline.reader.refusal_tokens,
        effects=_effects(baseline, groups, rule, best.layer, options.positions),
    )
    baseline.reader.meter.settle()
    return Artefact.of(
        "addition",
        baseline.source(),
        record,
        rules={"layers": [best.layer], "positions": options.positions},
        tensors={"push": rule.push},
        probes=_probes(groups, float(rule.push.norm())),
    )


def _rule(text: directions.TextStatistics, layer: int, coefficient: float) -> Rule:
    push = coefficient * text.separation[layer] * text.direction[layer]
    rule = Rule(len(push), {})
    rule.load_state_dict({"push": push.float()})
    return rule


def _edit(rule: Rule, layer: int, positions: Positions) -> Edit:
    """The rule at a layer, where the checkpoint will apply it to a prompt."""
    copy = deepcopy(rule)  # `to` moves a module in place, and the rule's tensors are shipped

    def change(h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
        after: torch.Tensor
        after, _ = copy.to(h.device)(h.float(), context)
        return after.to(h.dtype)

    return Edit(layer, change, positions)


def trials(
    baseline: Measurements, text: directions.TextStatistics, options: AdditionOptions
) -> list[Trial]:
    """The layers tried, the one that induces most refusal first."""
    u, s = (both.decision.readout.coordinates for both in baseline.text.values())
    separability = directions.separability(u, s).nan_to_num(-torch.inf)
    layers = len(separability)
    admissible = [i for i in range(layers) if directions.in_the_middle(i, layers)]
    ranked = sorted(admissible, key=lambda layer: -float(separability[layer]))
    chosen = [options.layer] if options.layer is not None else ranked[:_FINALISTS]
    if not chosen:
        raise UnsteerableError("The model has too few decoder layers to choose one to steer.")
    harmless = baseline.text["harmless"].decision.requests
    found = []
    for layer in chosen:
        edit = _edit(_rule(text, layer, options.coefficient), layer, options.positions)
        induced = float(baseline.reader.read(harmless, edit=edit).log_odds.mean())
        found.append(Trial(layer=layer, separability=float(separability[layer]), induced=induced))
    sign = 1 if options.coefficient > 0 else -1
    return sorted(found, key=lambda trial: -sign * trial.induced)


def _effects(
    baseline: Measurements,
    groups: dict[Group, Reading],
    rule: Rule,
    layer: int,
    positions: Positions,
) -> list[Effect]:
    edit = _edit(rule, layer, positions)
    effects = []
    for group, both in groups.items():
        after = baseline.reader.read(both.requests, edit=edit).log_odds
        before = float(both.readout.log_odds.mean())
        effects.append(Effect(**group._asdict(), before=before, after=float(after.mean())))
    return effects


def _probes(groups: dict[Group, Reading], strength: float) -> list[Probe]:
    """A few requests of every kind; all are pushed alike."""
    probes = []
    for group, both in groups.items():
        expected = Decision(active=True, strength=strength, modality=group.modality)
        for request, stimuli in list(zip(both.requests, both.stimuli, strict=True))[:_PROBES]:
            probes.append(
                Probe(
                    modality=group.modality,
                    prompt=request.prompt,
                    stimuli=stimuli,
                    expected=expected,
                    strength_scale=strength,
                    significant=True,
                )
            )
    return probes
