"""Text-only scores of every decoder layer, and which layers may be steered (A3.5).

A3.n are sections of docs/method.md.
"""

import math
from dataclasses import dataclass
from typing import Final

import torch

from mars_export.calibration import directions
from mars_export.calibration.measurements import Measurements
from mars_export.common.errors import UnsteerableError
from mars_export.methods.mars.material import Material
from mars_export.methods.mars.origin import tolerance_bound
from mars_export.methods.mars.record import LayerScore, Quantiles

__all__ = ["LEAST_GATE_WIDTH", "Layers", "score_layers"]

LEAST_SEPARABILITY: Final = 2.0
"""d' below which a layer has no usable direction (A3.9)."""

LEAST_GATE_WIDTH: Final = 0.25
"""Least distance from the gate origin to the harmful centroid, over R (A3.3)."""

_DEPTH: Final = "outside the middle of the network"
_CAP: Final = 0.95
"""Quantile of harmful decision text that bounds the push (A3.4)."""
_QUANTILES: Final = (0.1, 0.5, 0.9)


@dataclass(frozen=True)
class Layers:
    """Every layer by text alone; float64, residual-stream units.

    Attributes:
        text: Difference in means.
        scores: (3, L) consistency, separability, margin.
        origin: (L,) o of text.
        cap: (L,) c.
        combined: (L,) NaN where excluded.
        excluded: Reason per layer, None where admissible.
    """

    text: directions.TextStatistics
    scores: torch.Tensor
    origin: torch.Tensor
    cap: torch.Tensor
    combined: torch.Tensor
    excluded: tuple[str | None, ...]

    def __len__(self) -> int:
        return len(self.excluded)

    def ranking(self) -> list[int]:
        """Admissible layers, best combined score first; of equal ones the earlier.

        Raises:
            ExportError: There is none; the message names the score that failed.
        """
        order = torch.argsort(self.combined.nan_to_num(-1.0), descending=True, stable=True)
        ranked = [layer for layer in order.tolist() if self.excluded[layer] is None]
        if not ranked:
            raise UnsteerableError(self._failure())
        return ranked

    def score(self, layer: int, material: Material) -> LayerScore:
        """The record of one layer, before any causal check."""
        combined, size = float(self.combined[layer]), float(self.text.separation[layer])
        consistency, separability, margin = map(_finite, self.scores[:, layer].tolist())
        betas = {m: shifts.at(layer).at() for m, shifts in material.shifts.items()}
        return LayerScore(
            layer=layer,
            consistency=consistency,
            separability=separability,
            margin=margin,
            combined=None if math.isnan(combined) else combined,
            excluded=self.excluded[layer],
            separation=size,
            shift={m: _finite(beta / size) if size else 0.0 for m, beta in betas.items()},
            groups=self._quantiles(layer, material) if size else [],
        )

    def _quantiles(self, layer: int, material: Material) -> list[Quantiles]:
        at = torch.tensor(_QUANTILES, dtype=torch.float64)
        result = []
        for group, reading in material.groups().items():
            p = material.placed(group.modality, reading)[layer]
            placed = (p - self.text.harmless[layer]) / self.text.separation[layer]
            low, middle, high = map(_finite, placed.quantile(at).tolist())
            result.append(Quantiles(**group._asdict(), low=low, middle=middle, high=high))
        return result

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
    """Scores of every layer from the decision prompts; nothing is run."""
    text = baseline.statistics
    harmful, harmless = (baseline.text[label].decision.readout for label in ("harmful", "harmless"))
    u, s = harmful.coordinates, harmless.coordinates
    scores = torch.stack(
        [
            directions.consistency(u, harmful.distances, text),
            directions.separability(u, s),
            directions.margin(u, s, text.separation),
        ]
    )
    origin = torch.maximum(text.harmless, tolerance_bound(s, strict=True))
    excluded = tuple(_excluded(i, text, scores, origin) for i in range(len(origin)))
    admissible = torch.tensor([reason is None for reason in excluded])
    combined = directions.combine(scores, admissible)
    return Layers(text, scores, origin, u.quantile(_CAP, -1), combined, excluded)


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


def _finite(x: float) -> float:
    """JSON has no infinities; a layer without finite scores is excluded anyway."""
    return x if math.isfinite(x) else 0.0
