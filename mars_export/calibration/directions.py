"""Text statistics of every decoder layer: refusal direction and layer scores, in float64.

Tensors are (L, ...) over the layers; coordinates are residual-stream units. A3.n are sections of
docs/method.md.
"""

from dataclasses import dataclass
from typing import Final

import torch

__all__ = [
    "TextStatistics",
    "combine",
    "consistency",
    "coordinates",
    "in_the_middle",
    "margin",
    "places",
    "separability",
    "text_statistics",
]

_TAIL: Final = 0.05

_FIRST, _LAST = 0.2, 0.8
"""Share of the depth between which a layer is admissible (A3.5)."""


@dataclass(frozen=True)
class TextStatistics:
    """Harmful against harmless text, per layer (A3.1); float64.

    Attributes:
        centroid_harmful: (L, d) mean of harmful direction text.
        centroid_harmless: (L, d) mean of harmless direction text.
        direction: (L, d) unit vector r from harmless to harmful text; 0 where there is none.
        separation: (L,) R, distance of the centroids along it.
        harmful: (L,) p_u, coordinate of the harmful centroid.
        harmless: (L,) p_s = p_u - R.
    """

    centroid_harmful: torch.Tensor
    centroid_harmless: torch.Tensor
    direction: torch.Tensor
    separation: torch.Tensor
    harmful: torch.Tensor
    harmless: torch.Tensor


def text_statistics(
    harmful: torch.Tensor, harmless: torch.Tensor, along: torch.Tensor | None = None
) -> TextStatistics:
    """Centroids of every layer, and the direction from one to the other.

    Args:
        harmful: (L, N, d) states of harmful direction text.
        harmless: (L, M, d) states of harmless direction text.
        along: (L, d) float64 directions of any length and sign; None for the difference in means.

    Returns:
        Statistics accumulated in float64.
    """
    mean_u = harmful.mean(1, dtype=torch.float64)
    mean_s = harmless.mean(1, dtype=torch.float64)
    difference = mean_u - mean_s
    along = difference if along is None else along
    tiny = torch.finfo(torch.float64).tiny
    direction = along / along.norm(dim=-1, keepdim=True).clamp_min(tiny)
    direction = torch.where((difference * direction).sum(-1, keepdim=True) < 0, -1, 1) * direction
    return TextStatistics(
        mean_u,
        mean_s,
        direction,
        (difference * direction).sum(-1),
        (mean_u * direction).sum(-1),
        (mean_s * direction).sum(-1),
    )


def in_the_middle(layer: int, layers: int) -> bool:
    """Whether a layer may be chosen by its depth: not in the first or the last fifth (A3.5)."""
    return _FIRST * layers <= layer < _LAST * layers


def places(states: torch.Tensor, text: TextStatistics) -> tuple[torch.Tensor, torch.Tensor]:
    """Coordinates of states (L, N, d), and how far they are from the harmless centroid, (L, N)."""
    apart = states.double() - text.centroid_harmless.unsqueeze(1)
    return coordinates(states, text.direction), apart.norm(dim=-1)


def coordinates(states: torch.Tensor, direction: torch.Tensor) -> torch.Tensor:
    """Coordinates <h, r> of states along the direction of their layer.

    Args:
        states: (L, N, d), any floating dtype.
        direction: (L, d) float64.

    Returns:
        (L, N) float64.
    """
    rows = [h.double() @ r for h, r in zip(states, direction, strict=True)]
    return torch.stack(rows)


def consistency(
    harmful: torch.Tensor, distances: torch.Tensor, text: TextStatistics
) -> torch.Tensor:
    """Mean cosine of h - mu_s with r over harmful decision text (A3.5).

    Args:
        harmful: (L, N) coordinates.
        distances: (L, N) |h - mu_s| of the same states.
        text: Statistics of the direction prompts.

    Returns:
        (L,) float64 in [-1, 1].
    """
    tiny = torch.finfo(torch.float64).tiny
    return ((harmful - text.harmless.unsqueeze(-1)) / distances.clamp_min(tiny)).mean(-1)


def separability(harmful: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
    """Return d' of coordinates (A3.5): mean gap over the root mean variance.

    Args:
        harmful: (L, N) coordinates, N > 1.
        harmless: (L, M) coordinates, M > 1.

    Returns:
        (L,) float64, 0 where nothing varies and the means coincide.
    """
    spread = ((harmful.var(-1) + harmless.var(-1)) / 2).sqrt()
    gap = harmful.mean(-1) - harmless.mean(-1)
    return gap / spread.clamp_min(torch.finfo(torch.float64).tiny)


def margin(harmful: torch.Tensor, harmless: torch.Tensor, separation: torch.Tensor) -> torch.Tensor:
    """Gap from the 95 % quantile of harmless to the 5 % quantile of harmful text, over R (A3.5).

    Args:
        harmful: (L, N) coordinates.
        harmless: (L, M) coordinates.
        separation: (L,) R.

    Returns:
        (L,) float64.
    """
    low, high = harmful.quantile(_TAIL, -1), harmless.quantile(1 - _TAIL, -1)
    return (low - high) / separation.clamp_min(torch.finfo(torch.float64).tiny)


def combine(scores: torch.Tensor, admissible: torch.Tensor) -> torch.Tensor:
    """Equal-weight mean of scores after min-max over the admissible layers (A3.5).

    Args:
        scores: (S, L) float64, one row per score.
        admissible: (L,) bool.

    Returns:
        (L,) float64, NaN for layers that are not admissible. A score that does not vary counts 1.
    """
    combined = torch.full_like(scores[0], torch.nan)
    chosen = scores[:, admissible]
    if chosen.numel():
        low, high = chosen.amin(-1, keepdim=True), chosen.amax(-1, keepdim=True)
        scaled = torch.where(high > low, (chosen - low) / (high - low), 1.0)
        combined[admissible] = scaled.mean(0)
    return combined
