"""What a neutral picture alone does to the residual stream, and where the gate opens; float64."""

from typing import Final

import torch

__all__ = ["GUARD", "ORIGIN_QUANTILE", "gate_origin", "modality_shift"]

ORIGIN_QUANTILE: Final = 0.95
"""Share of harmless validation inputs whose gate is exactly 0 (method A3.3)."""

GUARD: Final = 0.25
"""Least distance from the gate origin to the harmful centroid, over R (method A3.3)."""


def modality_shift(text: torch.Tensor, visual: torch.Tensor) -> torch.Tensor:
    """Paired shift b = mean of h(t, v) - h(t) over harmless prompts t and neutral visuals v (C1).

    Args:
        text: (L, N, d) states of the prompts alone.
        visual: (L, N, d) states of the same prompts, each beside a neutral visual.

    Returns:
        (L, d) float64. Its coordinate along the direction is beta (method A3.2).
    """
    rows = [(v.double() - t.double()).mean(0) for t, v in zip(text, visual, strict=True)]
    return torch.stack(rows)


def gate_origin(groups: list[torch.Tensor], harmless: torch.Tensor) -> torch.Tensor:
    """Coordinate o at which the gate opens (O3 of method A3.3).

    It is the largest of p_s and the 95 % quantiles of the groups, so that each kind of harmless
    input has gate 0 at least that often.

    Args:
        groups: Re-centered coordinates (L, N_i) of harmless validation inputs, one tensor per
            modality.
        harmless: (L,) p_s.

    Returns:
        (L,) float64.
    """
    quantiles = [group.quantile(ORIGIN_QUANTILE, -1, interpolation="higher") for group in groups]
    return torch.stack([harmless, *quantiles]).amax(0)
