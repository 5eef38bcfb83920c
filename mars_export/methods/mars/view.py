"""One layer: where the gate of each modality opens, and the rule with these numbers.

A3.n are sections of docs/method.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

import torch

from mars_export.calibration.activations import Edit
from mars_export.calibration.measurements import Reading
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.layers import LEAST_GATE_WIDTH, Layers
from mars_export.methods.mars.material import Kind, Material
from mars_export.methods.mars.origin import one_of_each_prompt, tolerance_bound
from mars_export.methods.mars.record import (
    RESERVE,
    Condition,
    Shift,
    Strength,
    Treatment,
    Tuned,
)
from mars_export.methods.mars.rule import Rule

__all__ = ["LayerView", "Numbers", "rule_sizes", "rule_tensors", "text_view", "view_of"]

_MATTERS: Final = 0.1
"""Share of the median margin from which a movement matters."""
_ROUNDING: Final = 1e-6
"""Difference of two shifts, over R, that rounding may explain."""


class Numbers(Protocol):
    """What the rule is made from at one layer; a `LayerView` and a `MarsRecord` have it."""

    @property
    def separation(self) -> float:
        """The distance R of the text centroids, residual-stream units, as all that follow."""

    @property
    def harmful(self) -> dict[Modality, float]:
        """The coordinate p_u at which the gate is 1, of every modality."""

    @property
    def origin(self) -> dict[Modality, float]:
        """The coordinate o at which the gate opens, of every modality."""

    @property
    def cap(self) -> float:
        """The coordinate c beyond which nothing is pushed."""

    @property
    def strengths(self) -> Mapping[Modality, Strength]:
        """Of the modalities that have another cap and strength than text."""

    @property
    def shift(self) -> dict[Modality, Shift]:
        """The shift beta of every modality, in the order of the steering tensors."""


def rule_sizes(shift: Mapping[Modality, Shift]) -> dict[str, int]:
    """What the rule has to know of its tensors before they are loaded."""
    return {
        "knots": max(2, *(len(s.tokens) for s in shift.values())),
        "turns": max(len(s.turns) for s in shift.values()),
    }


def rule_tensors(
    numbers: Numbers, direction: torch.Tensor, gain: float, radius: float
) -> dict[str, torch.Tensor]:
    """The tensors of `Rule` (A3.6), float32; nothing else puts its scalars together.

    Args:
        numbers: Coordinates along the direction.
        direction: (d,) refusal direction, of any length.
        gain: kappa of the modalities without a strength of their own.
        radius: rho of those.
    """
    unit, size = direction.double() / direction.double().norm(), numbers.separation
    usual = Strength(cap=numbers.cap, gain=gain, radius=radius)
    shifts, sizes = numbers.shift.values(), rule_sizes(numbers.shift)
    knots = torch.tensor([_padded(s.tokens, sizes["knots"]) for s in shifts])
    own = [(m, numbers.strengths.get(m, usual)) for m in numbers.origin]
    bounds = [
        [numbers.origin[m], numbers.harmful[m], s.cap, s.gain * size, s.radius * size]
        for m, s in own
    ]
    return {
        "direction": unit.float(),
        "knots": knots.float(),
        "shift": torch.tensor([_padded(s.values, sizes["knots"]) for s in shifts]),
        "turn": torch.tensor([_padded(s.turns, sizes["turns"]) for s in shifts]),
        "bounds": torch.tensor(bounds),
    }


def _padded(values: list[Any], size: int) -> list[Any]:
    return values + values[-1:] * (size - len(values))


@dataclass(frozen=True)
class LayerView:
    """One layer: vectors float32, coordinates along its direction in residual-stream units.

    Attributes:
        layer: Index, from 0.
        direction: (d,) unit refusal direction r.
        centroids: Label -> (d,) mean state of direction text.
        separation: R.
        harmful: p_u of every modality.
        harmless: p_s.
        shift: beta of every modality; 0 for text.
        origin: o of every modality.
        cap: c.
        conditions: What moves the coordinate, and what was done about it.
        compression: (harmful - harmless text beside neutral stimuli) over R, of every modality.
        squeezed: Modalities whose origin was held down, as no condition left the gate wide enough.
        strengths: Of the modalities that have another cap and strength than text.
        tuned: What labeled requests changed.
    """

    layer: int
    direction: torch.Tensor
    centroids: dict[str, torch.Tensor]
    separation: float
    harmful: dict[Modality, float]
    harmless: float
    shift: dict[Modality, Shift]
    origin: dict[Modality, float]
    cap: float
    conditions: tuple[Condition, ...] = ()
    compression: Mapping[Modality, float] | None = None
    squeezed: tuple[Modality, ...] = ()
    strengths: Mapping[Modality, Strength] = field(default_factory=dict)
    tuned: tuple[Tuned, ...] = ()

    @property
    def rules(self) -> dict[str, Any]:
        """What this method adds to `steering` in config.json."""
        return {"layers": [self.layer], "positions": "turn_end", **rule_sizes(self.shift)}

    def rule(self, gain: float, radius: float) -> Rule:
        """The module that ships, with this layer's numbers and this strength."""
        rules = {"modalities": list(self.shift), **rule_sizes(self.shift)}
        rule = Rule(len(self.direction), rules)
        rule.load_state_dict(rule_tensors(self, self.direction, gain, radius))
        return rule

    def placed(self, reading: Reading) -> torch.Tensor:
        """(N,) re-centered coordinates, as the rule computes them."""
        beta = self.rule(1.0, 1.0).beta(reading.readout.context)
        return reading.readout.coordinates[self.layer] - beta.double()

    def steered(self, rule: Rule) -> Edit:
        """The run-time rule."""

        def change(h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            after: torch.Tensor
            after, _ = rule.to(h.device)(h.float(), context)
            return after.to(h.dtype)

        return Edit(self.layer, change)

    def pushed_to_the_limit(self, rule: Rule) -> Edit:
        """The longest push that cap and radius allow, with the gate held open."""

        def change(h: torch.Tensor, context: torch.Tensor) -> torch.Tensor:
            rule.to(h.device)
            x = h.float()
            length = rule.limit(rule.coordinate(x, context), context[..., 0])
            after: torch.Tensor = rule.push(x, length)
            return after.to(h.dtype)

        return Edit(self.layer, change)


def text_view(layers: Layers, layer: int) -> LayerView:
    """One layer by text alone: no other modality, no later turn."""
    text = layers.text
    return LayerView(
        layer,
        text.direction[layer].float(),
        {
            "harmful": text.centroid_harmful[layer].float(),
            "harmless": text.centroid_harmless[layer].float(),
        },
        float(text.separation[layer]),
        {"text": float(text.harmful[layer])},
        float(text.harmless[layer]),
        {"text": Shift(tokens=[0], values=[0.0])},
        {"text": float(layers.origin[layer])},
        float(layers.cap[layer]),
    )


def view_of(layers: Layers, material: Material, layer: int, reserve: float = RESERVE) -> LayerView:
    """One layer with all modalities and conditions.

    Args:
        layers: By text alone.
        material: Shifts and readings of every modality.
        layer: Which one.
        reserve: From what harmless requests need to the origin of a gate, over R.
    """
    plain = text_view(layers, layer)
    size, harmful = plain.separation, plain.harmful["text"]
    shift = {m: shifts.at(layer) for m, shifts in material.shifts.items()}
    origin: dict[Modality, float] = {}
    conditions: list[Condition] = []
    compression: dict[Modality, float] = {}
    squeezed = []
    for modality, kinds in material.harmless.items():
        values = [material.placed(modality, kind.answered)[layer] for kind in kinds]
        bounds = [
            float(tolerance_bound(v, strict=False)) if kind.usually_answered else None
            for kind, v in zip(kinds, values, strict=True)
        ]
        spare = 0.0 if modality == "text" else reserve * size
        widest = harmful - LEAST_GATE_WIDTH * size - spare
        fits = [bound is not None and bound <= widest for bound in bounds]
        # A harmless request needs what it needs as text, however little neutral stimuli add.
        opens = _origin(kinds, values, bounds, fits, origin.get("text", plain.harmless))
        if opens is None or opens > widest:
            squeezed.append(modality)
            opens = widest
        origin[modality] = opens = opens + spare
        stand_ins = material.placed(modality, material.harmful[modality])[layer]
        margin = (float(stand_ins.median()) - opens) / size
        if modality != "text":
            compression[modality] = float(stand_ins.mean() - values[0].mean()) / size
        conditions += [
            _condition(plain, material, modality, kind, bound, fit or kind.divided, margin)
            for kind, bound, fit in zip(kinds, bounds, fits, strict=True)
        ]
    return LayerView(
        plain.layer, plain.direction, plain.centroids, size, dict.fromkeys(origin, harmful),
        plain.harmless, shift, origin, plain.cap, tuple(conditions), compression, tuple(squeezed),
    )  # fmt: skip


def _origin(
    kinds: Sequence[Kind],
    values: Sequence[torch.Tensor],
    bounds: Sequence[float | None],
    fits: Sequence[bool],
    least: float,
) -> float | None:
    """Where the gate of a modality opens (O3 of A3.3); None if it cannot allow for any condition.

    It is the largest of `least`, the bound of every condition, and the tolerance bound of one
    request of each prompt; the reserve comes on top.
    """
    counted = [i for i, kind in enumerate(kinds) if fits[i] and not kind.divided]
    if not counted:
        return None
    pooled = one_of_each_prompt(
        [values[i] for i in counted], [kinds[i].answered.prompts for i in counted]
    )
    single = [bound for i, bound in enumerate(bounds) if i in counted and bound is not None]
    return max(least, *single, float(tolerance_bound(pooled, strict=True)))


def _condition(
    plain: LayerView,
    material: Material,
    modality: Modality,
    kind: Kind,
    bound: float | None,
    fits: bool,
    margin: float,
) -> Condition:
    """How far a kind of requests lies from the same prompts in plain ones."""
    alone = material.harmless["text"][0].answered.readout.coordinates[plain.layer]
    context, size = kind.every.readout.context, plain.separation
    placed = material.placed(modality, kind.every)[plain.layer]
    rest = (placed - alone[list(kind.every.prompts)]) / size
    usual = material.shifts[modality].at(plain.layer).at()
    beta = material.shifts[modality].beta(context)[plain.layer]
    moved = rest + (beta - usual) / size
    share = abs(float(moved.mean())) / margin if margin > 0 else None
    treatment: Treatment = "refused" if bound is None else "origin" if fits else "left out"
    if treatment == "origin" and share is not None and share < _MATTERS:
        treatment = "none"
    elif treatment == "origin" and bool(((beta - usual).abs() > _ROUNDING * size).any()):
        treatment = "shift"
    return Condition(
        name=kind.name,
        modality=modality,
        n=len(kind.answered),
        refused=len(kind.every) - len(kind.answered),
        moved=float(moved.mean()),
        spread=float(moved.std(correction=0)),
        rest=float(rest.mean()),
        share=share,
        bound=None if bound is None else (bound - plain.harmless) / size,
        treatment=treatment,
    )
