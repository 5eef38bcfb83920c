"""The calibration of MARS from end to end: from a measured model to an `Artefact`."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import Measurements, Reading, measure
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import Artefact, Decision, Probe
from mars_export.methods.mars.checks import Outcome, check, findings, missed
from mars_export.methods.mars.layers import Layers, score_layers
from mars_export.methods.mars.material import Material, gather, requests_to_come
from mars_export.methods.mars.origin import confidence
from mars_export.methods.mars.record import Coordinates, MarsOptions, MarsRecord
from mars_export.methods.mars.refit import refit
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.strength import (
    Trial,
    Tuning,
    by_lift,
    by_scores,
    corrected,
    reached,
    try_layer,
    tune,
)
from mars_export.methods.mars.view import LayerView, rule_tensors, text_view, view_of

__all__ = ["Fit", "calibrate", "fit", "probe"]

_STRONG: Final = 3
"""Probes of each modality that are pushed."""

_SIGNIFICANT: Final = 0.1
"""Strength over R from which a push matters."""

_MOST: Final = 0.25
"""Largest difference in the gate of a probe that rounding may explain."""


@dataclass(frozen=True)
class Fit:
    """A measured model, and where and how strongly it is steered."""

    baseline: Measurements
    layers: Layers
    material: Material
    trials: list[Trial]
    view: LayerView
    tuning: Tuning


def fit(data: CalibrationData, options: MarsOptions) -> Fit:
    """Measure a model; choose direction, layer, origins and strength.

    Raises:
        ExportError: As `calibrate`.
    """
    data.require_layer(options.layer)
    baseline = measure(data, requests_to_come(data), options.direction)
    layers = score_layers(baseline)
    trials = _text_trials(baseline, layers, options)
    material = gather(baseline)
    trials = trials or by_lift(baseline, layers, material, options)
    view = view_of(layers, material, trials[-1].layer, options.reserve)
    view = corrected(baseline, view, material)
    tuning = tune(baseline, view, material, options)
    view = refit(baseline, view, tuning, material, options)
    if view.strengths:
        tuning = reached(baseline, view, tuning, material)
    return Fit(baseline, layers, material, trials, view, tuning)


def calibrate(data: CalibrationData, options: MarsOptions) -> Artefact:
    """Measure where and how to steer a model (MARS, arXiv 2606.31876).

    Only text and neutral stimuli are shown to the model; nothing is trained.

    Raises:
        ExportError: The model has no usable refusal direction (the message names the score that
            failed, its value and its threshold), no chat template, or too little memory.
    """
    found = fit(data, options)
    baseline, material, view, tuning = found.baseline, found.material, found.view, found.tuning
    rule = view.rule(tuning.gain, tuning.radius)
    outcome = check(baseline, view, rule, material)
    baseline.reader.meter.settle()
    record = _record(baseline, found.layers, material, view, tuning, found.trials, outcome, options)
    return Artefact.of(
        "mars",
        baseline.source(),
        record,
        rules=view.rules,
        tensors={
            **rule_tensors(view, view.direction, tuning.gain, tuning.radius),
            **{f"centroid_{label}": vector for label, vector in view.centroids.items()},
        },
        probes=_probes(record, rule, view, material, _calm(baseline, view)),
    )


def _text_trials(baseline: Measurements, layers: Layers, options: MarsOptions) -> list[Trial]:
    """Trials on text alone, the chosen layer last; none where the layer is chosen by its lift."""
    if options.layer is not None:
        view = text_view(layers, options.layer)
        over = view.origin["text"] - view.harmful["text"]
        if not over < 0:
            raise UnsteerableError(
                f"Layer {options.layer} cannot be steered: its gate origin lies {over:.3g} above "
                "the harmful centroid; take another layer."
            )
        return [try_layer(baseline, view)]
    if options.layer_rule == "lift":
        layers.ranking()  # says what is wrong before anything else is run
        return []
    return by_scores(baseline, layers)


def _record(
    baseline: Measurements, layers: Layers, material: Material, view: LayerView, tuning: Tuning,
    trials: Sequence[Trial], outcome: Outcome, options: MarsOptions,
) -> MarsRecord:  # fmt: skip
    scores = [layers.score(layer, material) for layer in range(len(layers))]
    for trial in trials:
        tried = {"induced": trial.induced, "kl": trial.kl, "lift": trial.lift}
        scores[trial.layer] = scores[trial.layer].model_copy(update=tried)
    record = MarsRecord(
        layer=view.layer,
        separation=view.separation,
        harmful=view.harmful,
        harmless=view.harmless,
        shift=view.shift,
        origin=view.origin,
        cap=view.cap,
        strengths=dict(view.strengths),
        tuned=list(view.tuned),
        **tuning._asdict(),
        direction=options.direction,
        layer_rule=options.layer_rule,
        reserve=options.reserve,
        layer_forced=options.layer is not None,
        layer_failures=trials[-1].failures,
        confidence={
            modality: confidence(len(set(kinds[0].answered.prompts)))
            for modality, kinds in material.harmless.items()
        },
        conditions=list(view.conditions),
        checks=outcome.checks,
        margins=outcome.margins,
        compression=dict(view.compression or {}),
        refusal_tokens=baseline.reader.refusal_tokens,
        scores=scores,
        projections=[
            Coordinates(**group._asdict(), values=view.placed(reading).tolist())
            for group, reading in material.groups().items()
        ],
    )
    return record.model_copy(
        update={"missed": missed(record, view.squeezed), "findings": findings(record)}
    )


def probe(
    record: MarsRecord,
    rule: Rule,
    modality: Modality,
    prompt: str,
    stimuli: tuple[int, ...],
    p: float,
    history: tuple[tuple[str, str], ...] = (),
) -> Probe:
    """A request at coordinate p with the decision that the rule takes there.

    Args:
        record: Numbers of the chosen layer.
        rule: With the tensors that are shipped.
        modality: Of the request.
        prompt: Its text.
        stimuli: The neutral stimuli that it shows.
        p: Re-centered coordinate along the direction, residual-stream units.
        history: Its earlier turns.
    """
    row = torch.tensor(list(record.shift).index(modality))
    at = torch.tensor(p)
    gate, strength = float(rule.gate(at, row)), float(rule.strength(at, row))
    # What the gate would be if the coordinate were off by its own size.
    size = max(record.separation, abs(p) + abs(record.shift[modality].at()))
    width = record.harmful[modality] - record.origin[modality]
    scale = max(1.0, size / width)
    own = record.strengths.get(modality)
    gain = own.gain if own else record.gain
    return Probe(
        modality=modality,
        prompt=prompt,
        stimuli=stimuli,
        history=history,
        expected=Decision(active=strength > 0, gate=gate, strength=strength, modality=modality),
        gate_scale=scale,
        strength_scale=record.separation * max(1.0, gain * scale),
        gate_limit=_gate_limit(record, modality, width),
        significant=strength > _SIGNIFICANT * record.separation,
    )


def _gate_limit(record: MarsRecord, modality: Modality, width: float) -> float:
    """Difference in the gate that rounding may explain: none that shuts it for half of the harm.

    width: p_u - o of the modality.
    """
    medians = [m.median * record.separation / width for m in record.margins
               if m.modality == modality]  # fmt: skip
    return min([_MOST, *(median for median in medians if median > 0)])


def _calm(baseline: Measurements, view: LayerView) -> set[str]:
    """Harmless direction prompts that do not open the gate, for earlier turns of probes."""
    reading = baseline.text["harmless"].direction
    below = view.placed(reading) <= view.origin["text"]
    return {request.prompt for request in reading.where(below).requests}


def _probes(
    record: MarsRecord, rule: Rule, view: LayerView, material: Material, calm: set[str]
) -> list[Probe]:
    """Of every modality, the strongest pushes and the harmless request nearest below the gate.

    Of a later turn and of several stimuli the harmless request nearest below the gate, too.

    Raises:
        ExportError: No probe of a modality is pushed, or none at all is left alone.
    """
    probes: list[Probe] = []
    for modality, harmful in material.harmful.items():
        every = _probes_of(record, rule, view, modality, harmful)
        strongest = sorted(every, key=lambda p: -(p[1].expected.strength or 0))
        probes += [p for _, p in strongest[:_STRONG] if p.expected.active]
        for kind in material.harmless[modality]:
            if kind.name in ("plain", "second turn", "two stimuli"):
                probes += _nearest(_probes_of(record, rule, view, modality, kind.answered), calm)
    pushed = {p.modality for p in probes if p.expected.active}
    if missing := [modality for modality in record.shift if modality not in pushed]:
        less = "" if missing[0] == "text" else ", or a smaller --reserve"
        raise UnsteerableError(
            f"Of {Group('harmful', missing[0])} no decision prompt is pushed; give more or "
            f"plainer harmful prompts{less}."
        )
    if not any(p.expected.gate == 0 for p in probes):
        raise UnsteerableError(
            "The gate is open for every harmless decision prompt; give more harmless prompts."
        )
    return probes


def _nearest(every: Sequence[tuple[float, Probe]], calm: set[str]) -> list[Probe]:
    """The probe nearest below the gate, of those whose earlier turns are calm; none if none is."""
    below = [
        (x, p)
        for x, p in every
        if not p.expected.gate and calm.issuperset(turn[0] for turn in p.history)
    ]
    return [max(below, key=lambda pair: pair[0])[1]] if below else []


def _probes_of(
    record: MarsRecord, rule: Rule, view: LayerView, modality: Modality, reading: Reading
) -> list[tuple[float, Probe]]:
    """(coordinate, probe) of requests without system prompt, whose earlier turns show nothing."""
    rows = zip(view.placed(reading).tolist(), reading.requests, reading.stimuli, strict=True)
    return [
        (p, probe(record, rule, modality, request.prompt, stimuli, p,
                  tuple((turn.prompt, turn.answer) for turn in request.turns)))
        for p, request, stimuli in rows
    ]  # fmt: skip
