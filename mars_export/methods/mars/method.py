"""The calibration of MARS from end to end: from a measured model to an `Artefact`."""

from collections.abc import Sequence
from typing import Final

import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import Measurements, measure
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import Artefact, Decision, Probe
from mars_export.methods.mars.layers import Layers, LayerView, rule_tensors, score_layers
from mars_export.methods.mars.record import Coordinates, LayerScore, MarsOptions, MarsRecord
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.strength import Trial, Tuning, choose, forecast, tune

__all__ = ["calibrate", "probe"]

_STRONG: Final = 3
"""Probes of each modality that are pushed."""

_SIGNIFICANT: Final = 0.1
"""Strength over R from which a push matters."""


def calibrate(data: CalibrationData, options: MarsOptions) -> Artefact:
    """Measure where and how to steer a model (MARS, arXiv 2606.31876).

    Only text and neutral stimuli are shown to the model; nothing is trained.

    Raises:
        ExportError: The model has no usable refusal direction (the message names the score that
            failed, its value and its threshold), no chat template, or too little memory.
    """
    data.require_layer(options.layer)
    baseline = measure(data, _further(data, options))
    layers = score_layers(baseline)
    view, trials = choose(baseline, layers, options)
    tuning = tune(baseline, view, options)
    baseline.reader.meter.settle()
    record = MarsRecord(
        layer=view.layer,
        separation=view.separation,
        harmful=view.harmful,
        harmless=view.harmless,
        shift=view.shift,
        origin=view.origin,
        cap=view.cap,
        **tuning._asdict(),
        layer_forced=options.layer is not None,
        layer_failures=next(t.failures for t in trials if t.layer == view.layer),
        refusal_tokens=baseline.reader.refusal_tokens,
        scores=_scores(layers, trials),
        projections=[
            Coordinates(**group._asdict(), values=p.tolist())
            for group, p in view.coordinates.items()
        ],
    )
    return Artefact.of(
        "mars",
        baseline.source(),
        record,
        rules=view.rules,
        tensors=_tensors(view, tuning),
        probes=_probes(baseline, record, view.rule(tuning.gain, tuning.radius)),
    )


def probe(
    record: MarsRecord,
    rule: Rule,
    modality: Modality,
    prompt: str,
    stimuli: tuple[int, ...],
    p: float,
) -> Probe:
    """A request at coordinate p with the decision that the rule takes there.

    Args:
        record: Numbers of the chosen layer.
        rule: With the tensors that are shipped.
        modality: Of the request.
        prompt: Its text.
        stimuli: The neutral stimuli that it shows.
        p: Re-centered coordinate along the direction, residual-stream units.
    """
    at = torch.tensor(p)
    gate, strength = float(rule.gate(at)), float(rule.strength(at))
    # What the gate would be if the coordinate were off by its own size.
    size = max(record.separation, abs(p) + abs(record.shift[modality].at()))
    scale = max(1.0, size / (record.harmful[modality] - record.origin[modality]))
    return Probe(
        modality=modality,
        prompt=prompt,
        stimuli=stimuli,
        expected=Decision(active=strength > 0, gate=gate, strength=strength, modality=modality),
        gate_scale=scale,
        strength_scale=record.separation * max(1.0, record.gain * scale),
        significant=strength > _SIGNIFICANT * record.separation,
    )


def _further(data: CalibrationData, options: MarsOptions) -> int:
    """About how many requests follow the measurements."""
    others, text = len(data.beside), len(data.prompts.harmless.decision)
    neutral = others * data.validation_stimuli
    harmful = others * len(data.prompts.harmful.decision)
    return others * data.measurement.pairs + forecast((text, neutral, harmful), options)


def _tensors(view: LayerView, tuning: Tuning) -> dict[str, torch.Tensor]:
    """What ships, and the vectors behind it for people."""
    return {
        **rule_tensors(view, view.direction, tuning.gain, tuning.radius),
        **{f"centroid_{label}": vector for label, vector in view.centroids.items()},
        **{f"shift_vector.{m}": vector for m, vector in view.vectors.items()},
    }


def _scores(layers: Layers, trials: Sequence[Trial]) -> list[LayerScore]:
    scores = [layers.score(layer) for layer in range(len(layers))]
    for trial in trials:
        checked = {"induced": trial.induced, "kl": trial.kl, "lift": trial.lift}
        scores[trial.layer] = scores[trial.layer].model_copy(update=checked)
    return scores


def _probes(baseline: Measurements, record: MarsRecord, rule: Rule) -> list[Probe]:
    """Of every modality, the strongest pushes and the harmless request nearest below the gate.

    Raises:
        ExportError: No probe of a modality is pushed, or none at all is left alone.
    """
    probes: list[Probe] = []
    for line in record.projections:
        both = baseline.validation[line.group]
        rows = zip(both.requests, both.stimuli, line.values, strict=True)
        every = [probe(record, rule, line.modality, r.prompt, i, p) for r, i, p in rows]
        if line.label == "harmful":
            strongest = sorted(every, key=lambda p: -(p.expected.strength or 0))
            probes += [p for p in strongest[:_STRONG] if p.expected.active]
        else:
            below = [(x, p) for x, p in zip(line.values, every, strict=True) if not p.expected.gate]
            probes += [max(below, key=lambda pair: pair[0])[1]] if below else []
    pushed = {p.modality for p in probes if p.expected.active}
    if missing := [modality for modality in record.shift if modality not in pushed]:
        raise UnsteerableError(
            f"Of {Group('harmful', missing[0])} no validation prompt is pushed; give more or "
            "plainer harmful prompts."
        )
    if not any(p.expected.gate == 0 for p in probes):
        raise UnsteerableError(
            "The gate is open for every harmless validation prompt; give more harmless prompts."
        )
    return probes
