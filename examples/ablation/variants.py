"""The parts of MARS taken away one at a time, and other layers and strengths, from one calibration.

A3.n are sections of docs/method.md.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

import torch
from in_memory import Rules

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import Measurements, measure
from mars_export.common.errors import ExportError
from mars_export.methods.mars.layers import Layers, score_layers
from mars_export.methods.mars.material import Material, gather, requests_to_come
from mars_export.methods.mars.record import MarsOptions, Shift
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.strength import (
    GAIN,
    RADIUS,
    Tuning,
    by_lift,
    by_scores,
    corrected,
    tune,
)
from mars_export.methods.mars.view import LayerView, rule_tensors, view_of

__all__ = ["RULES", "VARIANTS", "Measured", "Variant", "measured"]

_FAR: Final = 1e6
"""Multiples of R that no activation reaches."""
_GAINS: Final = (0.5, 1.0, 2.0, 3.0, 4.0)
_RADII: Final = (0.25, 0.5, 1.0, 1.5, 2.0)
_RESERVES: Final = (0.0, 1 / 24, 1 / 12, 1 / 8, 1 / 6)
_NO_SHIFT: Final = Shift(tokens=[0], values=[0.0])


class CosineGate(Rule):
    """Gates by the cosine of the re-centered state, as ASTRA does (arXiv 2411.16721).

    The gate opens at the center itself, the mean state of harmless text, moved along the direction
    by what the request shows. Cap and radius are those of MARS.
    """

    center: torch.Tensor

    def __init__(self, hidden_size: int, rules: dict[str, Any]) -> None:
        super().__init__(hidden_size, rules)
        self.register_buffer("center", torch.zeros(hidden_size, dtype=torch.float32))

    def forward(
        self, h: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As `Rule.forward`."""
        modality = context[..., 0]
        rest = h - self.center - self.beta(context).unsqueeze(-1) * self.direction
        cosine = (rest * self.direction).sum(-1) / rest.norm(dim=-1).clamp(min=1e-6)
        gate = torch.relu(cosine)
        longest = self.limit(self.coordinate(h, context), modality)
        strength = torch.minimum(self.bounds[modality][..., 3] * gate, longest)
        decision = {"gate": gate, "strength": strength, "calibrated": self.covered(context)}
        return self.push(h, strength), decision


class RecenteredState(Rule):
    """Takes the shift off the state as well, not off the measured coordinate alone (R-shift)."""

    def forward(
        self, h: torch.Tensor, context: torch.Tensor
    ) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
        """As `Rule.forward`; `strength` counts what was taken off."""
        after, decision = super().forward(h, context)
        beta = self.beta(context)
        return self.push(after, -beta), {**decision, "strength": decision["strength"] + beta.abs()}


RULES: Final[Mapping[str, type[Rule]]] = {
    rule.__name__: rule for rule in (Rule, CosineGate, RecenteredState)
}


@dataclass(frozen=True)
class Variant:
    """MARS without one of its parts.

    Attributes:
        name: In tables.
        expected: What method notes and papers predict of it.
        change: The numbers of a layer without that part.
        gain: kappa; None for that of the calibration.
        radius: rho; None for the same.
        rule: The class that runs.
    """

    name: str
    expected: str
    change: Callable[[LayerView], LayerView]
    gain: float | None = None
    radius: float | None = None
    rule: type[Rule] = Rule


def _same(view: LayerView) -> LayerView:
    return view


def _no_recentering(view: LayerView) -> LayerView:
    """No shift is taken off; the gate opens where harmless text alone says."""
    shift = dict.fromkeys(view.shift, _NO_SHIFT)
    return replace(view, shift=shift, origin=dict.fromkeys(view.origin, view.origin["text"]))


def _one_shift(view: LayerView) -> LayerView:
    """Of a modality: that of a plain request, however much it shows, in every turn."""
    shift = {m: Shift(tokens=[0], values=[s.at()]) for m, s in view.shift.items()}
    return replace(view, shift=shift)


def _no_turns(view: LayerView) -> LayerView:
    shift = {m: s.model_copy(update={"turns": [0.0]}) for m, s in view.shift.items()}
    return replace(view, shift=shift)


def _opening_at(origin: Callable[[LayerView], float]) -> Callable[[LayerView], LayerView]:
    """The gate of every modality opens at one place."""

    def change(view: LayerView) -> LayerView:
        return replace(view, origin=dict.fromkeys(view.origin, origin(view)))

    return change


def _no_cap(view: LayerView) -> LayerView:
    return replace(view, cap=view.harmless + _FAR * view.separation)


def _no_gate(view: LayerView) -> LayerView:
    return _opening_at(lambda v: v.harmless - _FAR * v.separation)(view)


def _text_scale(view: LayerView) -> LayerView:
    """The gate is 1 at the harmful text centroid, whatever is shown."""
    return replace(view, harmful=dict.fromkeys(view.harmful, view.harmful["text"]))


VARIANTS: Final = (
    Variant("MARS", "refuses harm in every modality, leaves the rest alone", _same),
    Variant("no re-centering", "over-refuses harmless pictures", _no_recentering),
    Variant("one shift per modality", "misplaces several pictures and later turns", _one_shift),
    Variant("no shift of turns", "over-refuses second turns", _no_turns),
    Variant("one origin for all (O3)", "misses harmful pictures",
            _opening_at(lambda v: max(v.origin.values()))),
    Variant("origin at the harmless centroid (O1)", "over-refuses some",
            _opening_at(lambda v: v.harmless)),
    Variant("origin at the midpoint (O2)", "misses harmful pictures",
            _opening_at(lambda v: (v.harmless + v.harmful["text"]) / 2)),
    Variant("scale of text for all", "pushes pictures too little", _text_scale),
    Variant("cosine gate (ASTRA)", "over-refuses some", _same, rule=CosineGate),
    Variant("re-centered state (R-shift)", "changes harmless requests", _same,
            rule=RecenteredState),
    Variant("no cap", "pushes refused text further", _no_cap),
    Variant("no radius", "pushes further", _same, radius=_FAR),
    Variant("no cap, no radius", "breaks answers", _no_cap, radius=_FAR),
    Variant("no gate", "over-refuses everything within the trust region", _no_gate),
    Variant("constant push", "over-refuses everything", lambda v: _no_cap(_no_gate(v)),
            gain=1.0, radius=1.0),
)  # fmt: skip


@dataclass(frozen=True)
class Measured:
    """What one calibration has measured of every layer.

    Attributes:
        baseline: The unsteered model.
        layers: Text-only scores.
        material: Shifts, and readings of the conditions.
        view: The chosen layer.
        tuning: Its strength.
    """

    baseline: Measurements
    layers: Layers
    material: Material
    view: LayerView
    tuning: Tuning

    def rules(
        self,
        view: LayerView | None = None,
        gain: float | None = None,
        radius: float | None = None,
        rule: type[Rule] = Rule,
    ) -> Rules:
        """What runs with these numbers; those of the calibration where none are named."""
        view, turns = view or self.view, self.baseline.turns
        strength = (gain or self.tuning.gain, radius or self.tuning.radius)
        tensors = rule_tensors(view, view.direction, *strength)
        if rule is CosineGate:
            tensors["center"] = view.centroids["harmless"]
        stated = {
            "method": "mars",
            **view.rules,
            "modalities": list(view.shift),
            "headers": [header.model_dump() for header in turns.headers],
            "turn_starts": turns.turn_starts,
            "refused": {},
        }
        return Rules(rule, {view.layer: tensors}, stated)

    def parts(self) -> Iterator[tuple[str, Rules]]:
        """The method without each of its parts, at the chosen layer."""
        for variant in VARIANTS:
            view = variant.change(self.view)
            yield variant.name, self.rules(view, variant.gain, variant.radius, variant.rule)

    def strengths(self) -> Iterator[tuple[str, Rules]]:
        """The curves of kappa, rho and the reserve, each with the others as they were chosen."""
        for gain in _GAINS:
            yield f"kappa {gain:g}", self.rules(gain=gain)
        for radius in _RADII:
            yield f"rho {radius:g}", self.rules(radius=radius)
        for reserve in _RESERVES:
            origin = view_of(self.layers, self.material, self.view.layer, reserve).origin
            yield f"reserve {reserve:.3f}", self.rules(replace(self.view, origin=origin))

    def every_layer(self) -> Iterator[tuple[str, Rules]]:
        """Both rules of choosing a layer, then each layer; unusable ones are left out."""
        yield f"by scores: layer {self.view.layer}", self.rules(gain=GAIN, radius=RADIUS)
        try:
            lift = by_lift(self.baseline, self.layers, self.material, MarsOptions())[-1].layer
        except ExportError:
            pass
        else:
            yield f"by lift: layer {lift}", self._at(lift)
        for layer in range(len(self.layers)):
            rules = self._at(layer)
            ready = rules.rule(self.view.direction.numel(), rules.stated)
            ready.load_state_dict(rules.tensors[layer])
            if ready.problem() is None:  # type: ignore[operator]
                yield f"layer {layer}", rules

    def _at(self, layer: int) -> Rules:
        view = view_of(self.layers, self.material, layer)
        return self.rules(view, GAIN, RADIUS)


def measured(data: CalibrationData) -> Measured:
    """Measure a model as a calibration with the default options does.

    Raises:
        ExportError: As `calibrate`.
    """
    options = MarsOptions()
    baseline = measure(data, requests_to_come(data))
    layers = score_layers(baseline)
    trials = by_scores(baseline, layers)
    material = gather(baseline)
    view = corrected(baseline, view_of(layers, material, trials[-1].layer), material)
    tuning = tune(baseline, view, material, options)
    return Measured(baseline, layers, material, view, tuning)
