"""Scores, shifts and gate of every decoder layer, and which layers may be steered (A3.5).

A3.n are sections of docs/method.md.
"""

import math
from dataclasses import dataclass
from typing import Any, Final, Protocol

import torch

from mars_export.calibration import directions
from mars_export.calibration.activations import Edit
from mars_export.calibration.measurements import Measurements
from mars_export.calibration.source import Group
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.record import LayerScore, Quantiles, Shift
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.shift import gate_origin, measure_shift

__all__ = ["LayerView", "Layers", "Numbers", "rule_tensors", "score_layers"]

LEAST_SEPARABILITY: Final = 2.0
"""d' below which a layer has no usable direction (A3.9)."""

LEAST_GATE_WIDTH: Final = 0.25
"""Least distance from the gate origin to the harmful centroid, over R (A3.3)."""

_DEPTH: Final = "outside the middle of the network"
_CAP: Final = 0.95
"""Quantile of harmful validation text that bounds the push (A3.4)."""
_QUANTILES: Final = (0.1, 0.5, 0.9)


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
    def shift(self) -> dict[Modality, Shift]:
        """The shift beta of every modality, in the order of the steering tensors."""


def rule_tensors(
    numbers: Numbers, direction: torch.Tensor, gain: float, radius: float
) -> dict[str, torch.Tensor]:
    """The tensors of `Rule` (A3.6), float32; nothing else puts its scalars together.

    Args:
        numbers: Coordinates along the direction.
        direction: (d,) refusal direction, of any length.
        gain: kappa.
        radius: rho.
    """
    unit = direction.double() / direction.double().norm()
    slope, longest = gain * numbers.separation, radius * numbers.separation
    return {
        "direction": unit.float(),
        "shift": torch.tensor([s.at() for s in numbers.shift.values()], dtype=torch.float32),
        "bounds": torch.tensor(
            [numbers.origin["text"], numbers.harmful["text"], numbers.cap, slope, longest]
        ),
    }


@dataclass(frozen=True)
class LayerView:
    """One layer: vectors float32, coordinates along its direction in residual-stream units.

    Attributes:
        layer: Index, from 0.
        direction: (d,) unit refusal direction r.
        centroids: Label -> (d,) mean state of training text.
        vectors: Modality -> (d,) paired shift b.
        separation: R.
        harmful: p_u of every modality.
        harmless: p_s.
        shift: beta of every modality; 0 for text.
        origin: o of every modality.
        cap: c.
        coordinates: (N,) float64, re-centered, of every validation group.
    """

    layer: int
    direction: torch.Tensor
    centroids: dict[str, torch.Tensor]
    vectors: dict[Modality, torch.Tensor]
    separation: float
    harmful: dict[Modality, float]
    harmless: float
    shift: dict[Modality, Shift]
    origin: dict[Modality, float]
    cap: float
    coordinates: dict[Group, torch.Tensor]

    @property
    def rules(self) -> dict[str, Any]:
        """What this method adds to `steering` in config.json."""
        return {"layers": [self.layer], "positions": "turn_end"}

    def rule(self, gain: float, radius: float) -> Rule:
        """The module that ships, with this layer's numbers and this strength."""
        rule = Rule(len(self.direction), {"modalities": list(self.shift)})
        rule.load_state_dict(rule_tensors(self, self.direction, gain, radius))
        return rule

    def steered(self, rule: Rule, modality: Modality) -> Edit:
        """The run-time rule, for requests of one modality."""
        index = list(self.shift).index(modality)

        def change(h: torch.Tensor) -> torch.Tensor:
            rule.to(h.device)
            after: torch.Tensor
            after, _ = rule(h.float(), _context(h, index))
            return after.to(h.dtype)

        return Edit(self.layer, change)

    def pushed_to_the_limit(self, rule: Rule, modality: Modality) -> Edit:
        """The longest push that cap and radius allow, with the gate held open."""
        index = list(self.shift).index(modality)

        def change(h: torch.Tensor) -> torch.Tensor:
            rule.to(h.device)
            x = h.float()
            p = rule.coordinate(x, _context(h, index))
            after: torch.Tensor = rule.push(x, rule.limit(p))
            return after.to(h.dtype)

        return Edit(self.layer, change)


@dataclass(frozen=True)
class Layers:
    """Every layer; float64, residual-stream units.

    Attributes:
        text: Difference in means.
        vectors: Modality -> (L, d) paired shift b; text is left out.
        shift: Modality -> (L,) beta; 0 for text.
        groups: (L, N) re-centered validation coordinates.
        scores: (3, L) consistency, separability, margin.
        origin: (L,) o.
        cap: (L,) c.
        combined: (L,) NaN where excluded.
        excluded: Reason per layer, None where admissible.
    """

    text: directions.TextStatistics
    vectors: dict[Modality, torch.Tensor]
    shift: dict[Modality, torch.Tensor]
    groups: dict[Group, torch.Tensor]
    scores: torch.Tensor
    origin: torch.Tensor
    cap: torch.Tensor
    combined: torch.Tensor
    excluded: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.excluded)

    def at(self, layer: int) -> LayerView:
        """One layer."""
        text = self.text
        return LayerView(
            layer,
            text.direction[layer].float(),
            {
                "harmful": text.centroid_harmful[layer].float(),
                "harmless": text.centroid_harmless[layer].float(),
            },
            {m: vector[layer].float() for m, vector in self.vectors.items()},
            float(text.separation[layer]),
            dict.fromkeys(self.shift, float(text.harmful[layer])),
            float(text.harmless[layer]),
            {m: Shift(tokens=[0], values=[float(b[layer])]) for m, b in self.shift.items()},
            dict.fromkeys(self.shift, float(self.origin[layer])),
            float(self.cap[layer]),
            {group: p[layer] for group, p in self.groups.items()},
        )

    def ranking(self) -> list[int]:
        """Admissible layers, best combined score first.

        Raises:
            ExportError: There is none; the message names the score that failed.
        """
        order = torch.argsort(self.combined.nan_to_num(-1.0), descending=True, stable=True)
        ranked = [layer for layer in order.tolist() if self.excluded[layer] is None]
        if not ranked:
            raise UnsteerableError(self._failure())
        return ranked

    def score(self, layer: int) -> LayerScore:
        """The record of one layer, before any causal check."""
        view, combined = self.at(layer), float(self.combined[layer])
        size = view.separation
        consistency, separability, margin = map(_finite, self.scores[:, layer].tolist())
        return LayerScore(
            layer=layer,
            consistency=consistency,
            separability=separability,
            margin=margin,
            combined=None if math.isnan(combined) else combined,
            excluded=self.excluded[layer],
            separation=size,
            shift={m: _finite(s.at() / size) if size else 0.0 for m, s in view.shift.items()},
            groups=_quantiles(view) if size else [],
        )

    def _failure(self) -> str:
        inside = [i for i, reason in enumerate(self.excluded) if reason != _DEPTH]
        best = max(inside, key=lambda i: float(self.scores[1, i]), default=None)
        if best is None:
            return "The model has too few decoder layers to choose one to steer."
        return (
            f"No usable refusal direction: the best layer is {best} of {len(self)}, and there "
            f"{self.excluded[best]}. Choose a base that refuses harmful text reliably, or give "
            "other prompts."
        )


def score_layers(baseline: Measurements) -> Layers:
    """Scores of every layer, and the shifts, which take further forwards."""
    text = baseline.text_statistics()
    vectors = {m: measure_shift(baseline, m) for m in baseline.data.beside}
    shift: dict[Modality, torch.Tensor] = {"text": torch.zeros_like(text.separation)}
    shift |= {m: (b * text.direction).sum(-1) for m, b in vectors.items()}
    groups = {
        group: directions.coordinates(both.readout.states, text.direction)
        - shift[group.modality].unsqueeze(-1)
        for group, both in baseline.validation.items()
    }
    u, s = groups[Group("harmful", "text")], groups[Group("harmless", "text")]
    unseen = baseline.text["harmful"].decision.readout.states
    scores = torch.stack(
        [
            directions.consistency(unseen, text),
            directions.separability(u, s),
            directions.margin(u, s, text.separation),
        ]
    )
    harmless = [p for group, p in groups.items() if group.label == "harmless"]
    origin = gate_origin(harmless, text.harmless)
    cap = u.quantile(_CAP, -1)
    excluded = tuple(_excluded(i, text, scores, origin) for i in range(len(cap)))
    admissible = torch.tensor([reason is None for reason in excluded])
    combined = directions.combine(scores, admissible)
    return Layers(text, vectors, shift, groups, scores, origin, cap, combined, excluded)


def _excluded(
    layer: int, text: directions.TextStatistics, scores: torch.Tensor, origin: torch.Tensor
) -> str | None:
    """Why a layer cannot be chosen; None when it can."""
    if not directions.in_the_middle(layer, scores.shape[1]):
        return _DEPTH
    if not bool(scores[:, layer].isfinite().all() & text.separation[layer].isfinite()):
        return "the activations are not finite"
    separability = float(scores[1, layer])
    if separability < LEAST_SEPARABILITY:
        return f"separability d' = {separability:.2f} is below {LEAST_SEPARABILITY:g}"
    gap = float((text.harmful[layer] - origin[layer]) / text.separation[layer])
    if gap < LEAST_GATE_WIDTH:
        return f"gate width (p_u - o) / R = {gap:.2f} is below {LEAST_GATE_WIDTH:g}"
    return None


def _quantiles(view: LayerView) -> list[Quantiles]:
    at = torch.tensor(_QUANTILES, dtype=torch.float64)
    result = []
    for group, p in view.coordinates.items():
        placed = (p - view.harmless) / view.separation
        low, middle, high = map(_finite, placed.double().quantile(at).tolist())
        result.append(Quantiles(**group._asdict(), low=low, middle=middle, high=high))
    return result


def _finite(x: float) -> float:
    """JSON has no infinities; a layer without finite scores is excluded anyway."""
    return x if math.isfinite(x) else 0.0


def _context(h: torch.Tensor, modality: int) -> torch.Tensor:
    """Contexts (..., 3) of states h (..., d) in first answers of one modality."""
    context = torch.zeros((*h.shape[:-1], 3), dtype=torch.long, device=h.device)
    context[..., 0] = modality
    return context
