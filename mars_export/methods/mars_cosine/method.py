"""The calibration of MARS with a cosine gate: all of MARS but its gate."""

import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import Reading
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.methods.base import Artefact, Decision, Probe
from mars_export.methods.mars.method import fit
from mars_export.methods.mars.record import OPEN_LIMIT, MarsOptions
from mars_export.methods.mars.view import LayerView, rule_tensors
from mars_export.methods.mars_cosine.record import CosineRecord, Gates
from mars_export.methods.mars_cosine.rule import Rule

__all__ = ["calibrate", "states_like"]

_STRONG = 3
"""Probes of each modality that are pushed."""

_SIGNIFICANT = 0.1
"""Strength over R from which a push matters."""


def calibrate(data: CalibrationData, options: MarsOptions) -> Artefact:
    """Calibrate MARS, and put the cosine from the neutral center in the place of its gate.

    Raises:
        ExportError: MARS cannot steer the model, or the gate is open for all harmless requests or
            shut for all harmful ones of a modality.
    """
    found = fit(data, options)
    view, tuning = found.view, found.tuning
    tensors = {
        **rule_tensors(view, view.direction, tuning.gain, tuning.radius),
        "center": view.centroids["harmless"],
        "centroid_harmful": view.centroids["harmful"],
    }
    rule = Rule(len(view.direction), {"modalities": list(view.shift), **view.rules})
    rule.load_state_dict({name: tensors[name] for name in Rule.TENSORS})
    gates, probes = [], []
    for group, reading in found.material.groups().items():
        decision = rule(states_like(view, reading), reading.readout.context)[1]
        gate = decision["gate"]
        gates.append(
            Gates(
                **group._asdict(), n=len(gate), open=int((gate > 0).sum()),
                median=float(gate.median()),
            )
        )  # fmt: skip
        probes += _probes(view, tuning.gain, group, reading, decision)
    found.baseline.reader.meter.settle()
    if not any(probe.expected.gate == 0 for probe in probes):
        raise UnsteerableError(
            "The gate is open for every harmless decision prompt; give more harmless prompts."
        )
    failures = found.trials[-1].failures
    record = CosineRecord(
        layer=view.layer,
        separation=view.separation,
        harmless=view.harmless,
        shift=view.shift,
        cap=view.cap,
        gain=tuning.gain,
        radius=tuning.radius,
        direction=options.direction,
        layer_forced=options.layer is not None,
        layer_failures=failures,
        gates=gates,
        refusal_tokens=found.baseline.reader.refusal_tokens,
        missed=[f"Layer {view.layer}, set by hand, fails a check: {why}." for why in failures],
        findings=[
            f"The gate is open for {some.open} of {some.n} harmless requests "
            f"({some.modality}); they may be refused."
            for some in gates
            if some.label == "harmless" and some.open > OPEN_LIMIT * some.n
        ],
    )
    return Artefact.of(
        "mars-cosine", found.baseline.source(), record,
        rules=view.rules, tensors=tensors, probes=probes,
    )  # fmt: skip


def states_like(view: LayerView, reading: Reading) -> torch.Tensor:
    """(N, d) states with the coordinate and distance from the center of those that were read.

    The rule depends on nothing else of a state.
    """
    r, center = view.direction.double(), view.centroids["harmless"].double()
    along = reading.readout.coordinates[view.layer] - center @ r
    apart = reading.readout.distances[view.layer]
    across = (apart**2 - along**2).clamp(min=0).sqrt()
    aside = torch.zeros_like(r)
    aside[r.abs().argmin()] = 1
    aside = aside - (aside @ r) * r
    aside = aside / aside.norm()
    states: torch.Tensor = center + along.unsqueeze(-1) * r + across.unsqueeze(-1) * aside
    return states.float()


def _probes(
    view: LayerView,
    gain: float,
    group: Group,
    reading: Reading,
    decision: dict[str, torch.Tensor],
) -> list[Probe]:
    """The strongest pushes of harmful requests; the harmless one furthest below the center.

    Raises:
        ExportError: No harmful request is pushed.
    """
    if group.label == "harmful":
        order = decision["strength"].argsort(descending=True)[:_STRONG].tolist()
        rows = [row for row in order if decision["strength"][row] > 0]
        if not rows:
            raise UnsteerableError(
                f"Of {group} no decision prompt is pushed; give more or plainer harmful prompts."
            )
    else:
        lowest = int(view.placed(reading).argmin())
        rows = [lowest] if decision["gate"][lowest] == 0 else []
    middle = float(decision["gate"].median())
    size, probes = view.separation, []
    for row in rows:
        gate, strength = (float(decision[name][row]) for name in ("gate", "strength"))
        x = abs(float(reading.readout.coordinates[view.layer, row]))
        # What the gate would be if the coordinate were off by its own size.
        scale = max(1.0, max(size, x) / float(reading.readout.distances[view.layer, row]))
        expected = Decision(
            active=strength > 0, gate=gate, strength=strength, modality=group.modality
        )
        probes.append(
            Probe(
                modality=group.modality,
                prompt=reading.requests[row].prompt,
                stimuli=reading.stimuli[row],
                expected=expected,
                gate_scale=scale,
                strength_scale=size * max(1.0, gain * scale),
                gate_limit=min(0.25, middle / 2) if middle > 0 else 0.25,
                significant=strength > _SIGNIFICANT * size,
            )
        )
    return probes
