"""Scores, shifts and gate of every decoder layer, and which layers may be steered."""

import math
from dataclasses import dataclass
from typing import Final

import torch

from mars_export.calibration import directions as st
from mars_export.calibration.measurements import Neutral, TextMeasurements
from mars_export.calibration.shift import GUARD, gate_origin
from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.arithmetic import Bounds
from mars_export.methods.mars.record import LayerScore

__all__ = ["LEAST_SEPARABILITY", "Landscape", "survey"]

LEAST_SEPARABILITY: Final = 2.0
"""d' below which a layer has no usable direction (A3.9)."""

_FIRST, _LAST = 0.2, 0.8
"""Share of the depth between which a layer is admissible (A3.5)."""


@dataclass(frozen=True)
class Landscape:
    """Per-layer results; float64, residual-stream units.

    Attributes:
        text: Difference in means.
        shift: modality -> (L,) beta; 0 for text.
        vectors: modality -> (L, d) paired shift b.
        groups: Name -> (L, N) re-centered validation coordinates.
        scores: (3, L) consistency, separability, margin.
        origin: (L,) o.
        cap: (L,) c.
        combined: (L,) NaN where excluded.
        excluded: Reason per layer, None where admissible.
    """

    text: st.TextStatistics
    shift: dict[Modality, torch.Tensor]
    vectors: dict[Modality, torch.Tensor]
    groups: dict[str, torch.Tensor]
    scores: torch.Tensor
    origin: torch.Tensor
    cap: torch.Tensor
    combined: torch.Tensor
    excluded: tuple[str | None, ...]

    def bounds(self, layer: int, gain: float, radius: float) -> Bounds:
        """The run-time scalars of a layer."""
        size = float(self.text.separation[layer])
        return Bounds(
            float(self.origin[layer]),
            float(self.text.harmful[layer]),
            float(self.cap[layer]),
            gain * size,
            radius * size,
        )

    def direction(self, layer: int) -> torch.Tensor:
        """(d,) float32 unit refusal direction of a layer."""
        return self.text.direction[layer].float()

    def ranking(self) -> list[int]:
        """Admissible layers, best combined score first.

        Raises:
            ExportError: There is none; the message names the score that failed.
        """
        order = torch.argsort(self.combined.nan_to_num(-1.0), descending=True, stable=True)
        ranked = [layer for layer in order.tolist() if self.excluded[layer] is None]
        if not ranked:
            raise ExportError(self._failure())
        return ranked

    def score(self, layer: int) -> LayerScore:
        """The record of one layer, before any causal check."""
        size = float(self.text.separation[layer])
        combined = float(self.combined[layer])
        c, s, m = (_finite(x) for x in self.scores[:, layer].tolist())
        return LayerScore(
            layer=layer,
            consistency=c,
            separability=s,
            margin=m,
            combined=None if math.isnan(combined) else combined,
            excluded=self.excluded[layer],
            separation=size,
            shift={
                k: _finite(float(v[layer]) / size) if size else 0.0 for k, v in self.shift.items()
            },
            groups=self._quantiles(layer) if size else {},
        )

    def _quantiles(self, layer: int) -> dict[str, tuple[float, float, float]]:
        """Where the middle 80 % of each group lie, between the text centroids at 0 and 1."""
        at = torch.tensor(_QUANTILES)
        found = {}
        for name, p in self.groups.items():
            placed = (p[layer] - self.text.harmless[layer]) / self.text.separation[layer]
            low, middle, high = placed.double().quantile(at.double()).tolist()
            found[name] = (_finite(low), _finite(middle), _finite(high))
        return found

    def _failure(self) -> str:
        inside = [i for i, why in enumerate(self.excluded) if why != _DEPTH]
        best = max(inside, key=lambda i: float(self.scores[1, i]), default=None)
        if best is None:
            return "The model has too few decoder layers to choose one to steer."
        return (
            f"No usable refusal direction: the best layer is {best} of {len(self.excluded)}, and "
            f"there {self.excluded[best]}. Choose a base that refuses harmful text reliably, or "
            "give other prompts."
        )


_QUANTILES: Final = (0.1, 0.5, 0.9)
_DEPTH: Final = "outside the middle of the network"


def survey(text: TextMeasurements, neutral: dict[Modality, Neutral]) -> Landscape:
    """Turn measurements into scores of every layer.

    Args:
        text: Filtered text.
        neutral: Harmless text beside neutral visuals, per visual modality.
    """
    stats = st.text_statistics(
        text.harmful.train.readout.states, text.harmless.train.readout.states
    )
    held_harmful = text.harmful.validation.readout.states
    vectors = {modality: seen.shift for modality, seen in neutral.items()}
    shift: dict[Modality, torch.Tensor] = {"text": torch.zeros_like(stats.separation)}
    shift.update({m: (b * stats.direction).sum(-1) for m, b in vectors.items()})
    groups = {
        "harmful text": st.coordinates(held_harmful, stats.direction),
        "harmless text": st.coordinates(text.harmless.validation.readout.states, stats.direction),
    }
    for modality, seen in neutral.items():
        for label, measured in (("harmful", seen.harmful), ("harmless", seen.validation)):
            p = st.coordinates(measured.readout.states, stats.direction)
            groups[f"{label} text + neutral {modality}"] = p - shift[modality].unsqueeze(-1)
    u, s = groups["harmful text"], groups["harmless text"]
    scores = torch.stack(
        [
            st.consistency(held_harmful, stats),
            st.separability(u, s),
            st.margin(u, s, stats.separation),
        ]
    )
    harmless = [p for name, p in groups.items() if name.startswith("harmless")]
    origin = gate_origin(harmless, stats.harmless)
    cap = u.quantile(st.CAP_QUANTILE, -1)
    excluded = tuple(_excluded(i, stats, scores, origin) for i in range(len(cap)))
    admissible = torch.tensor([why is None for why in excluded])
    combined = st.combine(scores, admissible)
    return Landscape(stats, shift, vectors, groups, scores, origin, cap, combined, excluded)


def _excluded(
    layer: int, stats: st.TextStatistics, scores: torch.Tensor, origin: torch.Tensor
) -> str | None:
    """Why a layer cannot be chosen; None when it can."""
    layers = scores.shape[1]
    if not _FIRST * layers <= layer < _LAST * layers:
        return _DEPTH
    if not bool(scores[:, layer].isfinite().all() & stats.separation[layer].isfinite()):
        return "the activations are not finite"
    separability = float(scores[1, layer])
    if separability < LEAST_SEPARABILITY:
        return f"separability d' = {separability:.2f} is below {LEAST_SEPARABILITY:g}"
    room = float((stats.harmful[layer] - origin[layer]) / stats.separation[layer])
    if room < GUARD:
        return f"gate room (p_u - o) / R = {room:.2f} is below {GUARD:g}"
    return None


def _finite(x: float) -> float:
    """JSON has no infinities; a layer without finite scores is excluded anyway."""
    return x if math.isfinite(x) else 0.0
