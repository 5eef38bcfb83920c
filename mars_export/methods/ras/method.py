"""The calibration of RAS: how refusals begin, and where a request reads as risky.

R.n are sections of docs/method.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from pydantic import JsonValue
from transformers import BatchFeature

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import (
    FIRST_STIMULUS,
    Measurements,
    Part,
    measure,
    stimulus,
)
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.families.placement import input_device
from mars_export.inputs.requests import Request, collate
from mars_export.methods.base import Artefact, Decision, Probe
from mars_export.methods.ras.fragments import fragments
from mars_export.methods.ras.record import RasOptions, RasRecord, Reading
from mars_export.methods.ras.rule import AnswerRule
from mars_export.runtime.answers import Answers
from mars_export.runtime.passes import GREEDY, end_tokens, recorded_states

__all__ = ["calibrate"]

_STEPS: Final = 3
_DISCOUNT: Final = 0.3
"""N and g of the paper."""
_RISK_AT_ONE: Final = 0.99
"""r where the answer begins exactly like the mean refusal (R.3)."""
_EACH: Final = 48
"""Requests of one label and modality, in each part; as many refusals make the prototypes."""
_LEAST_AUROC: Final = 0.8
"""Below it the risk says too little to act on it."""
_FALSE: Final = 0.1
"""Share of harmless requests above which the record says that they read as risky."""
_PROBES: Final = 2
"""Of every label and modality."""


@dataclass(frozen=True)
class _Read:
    """Requests of one group and part: what they read as. similarity (N,) float64."""

    group: Group
    part: Part
    requests: tuple[Request, ...]
    stimuli: tuple[tuple[int, ...], ...]
    similarity: torch.Tensor


def calibrate(data: CalibrationData, options: RasOptions) -> Artefact:
    """Measure how refusals begin, and the risk of requests of both labels.

    Raises:
        ExportError: The model has no usable text refusal, its chat template cannot be taken apart,
            or harmful text does not read as riskier than harmless text.
    """
    kinds = 1 + len(data.beside)
    baseline = measure(data, _EACH * (1 + 4 * 2 * kinds))
    prompts = fragments(data, baseline.turns, baseline.reader.shown.placeholders)
    rules: dict[str, JsonValue] = {
        "layers": [],
        "positions": "answer",
        "steps": _STEPS,
        "discount": _DISCOUNT,
        "caption_tokens": options.caption_tokens,
        "prompts": {name: list(tokens) for name, tokens in prompts.items()},
    }
    refused = baseline.text["harmful"].direction.requests[:_EACH]
    rule = AnswerRule(baseline.statistics.direction.shape[1], rules)
    rule.prototypes = _prototypes(baseline, refused)
    answers = _answers(baseline, rules, rule)
    read = [
        _read(baseline, answers, Group(label, modality), part)
        for part in ("decision", "check")
        for modality in baseline.modalities
        for label in baseline.text
        if len(baseline.text[label].part(part))
    ]
    rule.curve = _curve([each for each in read if each.part == "decision"])
    auroc = _separation(read)
    readings = [_reading(each, rule) for each in read]
    record = RasRecord(
        findings=_findings(readings),
        refusal_tokens=baseline.reader.refusal_tokens,
        steps=_STEPS,
        discount=_DISCOUNT,
        caption_tokens=options.caption_tokens,
        refusals=len(refused),
        middle=float(rule.curve[0]),
        slope=float(rule.curve[1]),
        auroc=auroc,
        readings=readings,
    )
    probes = [p for each in read if each.part == "decision" for p in _probes(baseline, each, rule)]
    baseline.reader.meter.settle()
    return Artefact.of(
        "ras",
        baseline.source(),
        record,
        rules=rules,
        tensors={"prototypes": rule.prototypes, "curve": rule.curve},
        probes=probes,
    )


def _answers(baseline: Measurements, rules: Mapping[str, Any], rule: AnswerRule) -> Answers:
    shown = baseline.reader.shown
    headers = [header.model_dump() for header in baseline.turns.headers]
    whole = {**rules, "headers": headers, "modalities": list(shown.modalities)}
    return Answers(whole, rule, shown.placeholders)


def _prototypes(baseline: Measurements, refused: Sequence[Request]) -> torch.Tensor:
    """(N, d) float32: mean states with which the model begins refusals (R.1)."""
    model, width = baseline.data.model, baseline.statistics.direction.shape[1]

    @torch.inference_mode()
    def begin(inputs: BatchFeature) -> torch.Tensor:
        """(_STEPS, d + 1) float64: sums of states, and of how many."""
        sums = torch.zeros(_STEPS, width + 1, dtype=torch.float64)
        with recorded_states(model) as states:
            out = model.generate(**inputs, **GREEDY, max_new_tokens=_STEPS)
        said = out[:, inputs["input_ids"].shape[1] :]
        ended = torch.isin(said, end_tokens(model, said.device)).long().cumsum(1)
        for n, h in enumerate(states[-said.shape[1] :]):
            alive = ended[:, n - 1] == 0 if n else torch.ones_like(ended[:, 0]).bool()
            sums[n, :width] = h[alive.to(h.device)].double().sum(0).cpu()
            sums[n, width] = int(alive.sum())
        return sums

    parts = baseline.reader.each_batch(refused, begin)
    sums = torch.stack(list(parts)).sum(0)
    total, count = sums[:, :width], sums[:, width:]
    if not bool((count > 0).all()):
        raise UnsteerableError(
            f"No refusal of the model has {_STEPS} tokens, so there is no beginning to steer "
            "toward; choose a base that refuses in words."
        )
    return (total / count).float()


def _read(baseline: Measurements, answers: Answers, group: Group, part: Part) -> _Read:
    """Requests of a part, beside a neutral stimulus each where they are to show one (R.2)."""
    text = baseline.text[group.label].part(part).requests[:_EACH]
    stimuli: tuple[tuple[int, ...], ...] = ((),) * len(text)
    requests = tuple(text)
    if group.modality != "text":
        stimuli = tuple((FIRST_STIMULUS[part] + i,) for i in range(len(text)))
        requests = tuple(
            replace(request, media=(stimulus(group.modality, i, baseline.data.measurement),))
            for request, (i,) in zip(text, stimuli, strict=True)
        )
        baseline.drawn.setdefault(group.modality, set()).update(i for (i,) in stimuli)
    model, order = baseline.data.model, _largest_first(requests)

    @torch.inference_mode()
    def similarity(inputs: BatchFeature) -> torch.Tensor:
        mixing = answers.assess(model, model.generate, inputs, None)
        assert mixing is not None  # no answer was begun
        return mixing.risks.similarity.double().cpu()

    parts = list(baseline.reader.each_batch([requests[i] for i in order], similarity))
    return _Read(group, part, requests, stimuli, torch.cat(parts)[torch.tensor(order).argsort()])


def _largest_first(requests: Sequence[Request]) -> list[int]:
    return sorted(range(len(requests)), key=lambda i: -requests[i].characters)


def _curve(read: Sequence[_Read]) -> torch.Tensor:
    """(2,) x0, the mean S of all groups alike, and the slope that gives S = 1 its risk (R.3)."""
    middle = float(torch.stack([each.similarity.mean() for each in read]).mean())
    odds = math.log(_RISK_AT_ONE / (1 - _RISK_AT_ONE))
    return torch.tensor([middle, odds / max(1 - middle, 1e-6)])


def _separation(read: Sequence[_Read]) -> float:
    """AUROC of S on held-out text; refuses a model whose risk does not tell the labels apart."""
    parts = {each.part for each in read if each.group == Group("harmful", "text")}
    parts &= {each.part for each in read if each.group == Group("harmless", "text")}
    part = "check" if "check" in parts else "decision"
    found = {e.group.label: e.similarity for e in read
             if e.part == part and e.group.modality == "text"}  # fmt: skip
    auroc = _auroc(found["harmful"], found["harmless"])
    if not auroc >= _LEAST_AUROC:
        raise UnsteerableError(
            "Harmful text does not read as riskier than harmless text to this model: the AUROC on "
            f"held-out requests is {auroc:.2f}, and {_LEAST_AUROC} is needed. Choose another "
            "method, or a base that follows a safety instruction."
        )
    return auroc


def _auroc(above: torch.Tensor, below: torch.Tensor) -> float:
    """How often one of `above` (N,) is more than one of `below` (M,); a tie counts half."""
    difference = above.unsqueeze(1) - below
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())


def _reading(each: _Read, rule: AnswerRule) -> Reading:
    risk = rule.risk(each.similarity)
    return Reading(
        **each.group._asdict(),
        part=each.part,
        requests=len(each.requests),
        similarity=float(each.similarity.mean()),
        risk=float(risk.mean()),
        risky=float((risk > 0.5).double().mean()),
    )


def _findings(readings: Sequence[Reading]) -> list[str]:
    """What of harmless requests reads as risky, on held-out ones where there are any."""
    held_out = [reading for reading in readings if reading.part == "check"] or readings
    return [
        f"{100 * reading.risky:.0f} % of {reading.requests} requests of {reading.group} read as "
        "risky (risk above one half), so their answers are drawn toward refusals as well."
        for reading in held_out
        if reading.label == "harmless" and reading.risky > _FALSE
    ]


def _probes(baseline: Measurements, each: _Read, rule: AnswerRule) -> list[Probe]:
    """The requests of a group whose risk is furthest from one half, on the label's side."""
    sign = 1 if each.group.label == "harmful" else -1
    chosen = (sign * each.similarity).argsort(descending=True)[:_PROBES].tolist()
    return [_probe(baseline, each, i, rule) for i in chosen]


@torch.inference_mode()
def _probe(baseline: Measurements, each: _Read, row: int, rule: AnswerRule) -> Probe:
    """What the first token of its answer must show."""
    model, modality = baseline.data.model, each.group.modality
    with recorded_states(model) as states:
        inputs = collate(baseline.data.processor, [each.requests[row]])
        inputs = inputs.to(input_device(model), model.dtype)
        model(**inputs, use_cache=False, logits_to_keep=1)
    risk = rule.risk(each.similarity[row])
    distance = float((rule.prototypes[0] - states[-1][0].float().cpu()).norm())
    slope = max(1.0, float(rule.curve[1]))
    strength = float(risk) * distance
    return Probe(
        modality=modality,
        prompt=each.requests[row].prompt,
        stimuli=each.stimuli[row],
        expected=Decision(active=True, gate=float(risk), strength=strength, modality=modality),
        gate_scale=slope,
        strength_scale=slope * distance,
        significant=float(risk) > 0.5,
    )
