"""Ways to estimate the refusal direction of every layer from text, in float64 (A3.1).

Each gives a vector of any length and sign; `text_statistics` makes it a unit vector that points
from harmless to harmful text. A3.n are sections of docs/method.md.
"""

from collections.abc import Callable, Mapping
from typing import Final

import torch

from mars_export.calibration.source import DirectionSource

__all__ = ["DIFFERENCE", "ESTIMATORS", "SELF_GUARD", "difference_of_means", "prompt_shift"]

DIFFERENCE: Final[DirectionSource] = "difference-of-means"
SELF_GUARD: Final[DirectionSource] = "self-guard"

_SHRINKAGE: Final = 0.1
"""Variance added to every axis, over the mean variance of an axis."""


def difference_of_means(harmful: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
    """The difference of the means (Arditi et al., arXiv 2406.11717).

    Args:
        harmful: (N, d) float64 states of one layer.
        harmless: (M, d) the same of harmless text.

    Returns:
        (d,) float64.
    """
    return harmful.mean(0) - harmless.mean(0)


def principal_component(harmful: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
    """The first principal component around the midpoint of the two means.

    As CAST takes it (Lee et al., arXiv 2409.05907), after Zou et al. (arXiv 2310.01405). It says
    nothing of refusal where something else varies more than the label.

    Args:
        harmful: (N, d) float64 states of one layer.
        harmless: (M, d) the same of harmless text.

    Returns:
        (d,) float64.
    """
    midpoint = (harmful.mean(0) + harmless.mean(0)) / 2
    states = torch.cat([harmful, harmless]) - midpoint
    # X X' has the components of X' X, in N + M instead of d axes.
    vectors: torch.Tensor = torch.linalg.eigh(states @ states.T).eigenvectors
    return states.T @ vectors[:, -1]


def linear_probe(harmful: torch.Tensor, harmless: torch.Tensor) -> torch.Tensor:
    """Fisher's linear discriminant with a shrunk covariance: S^-1 (mu_u - mu_s).

    The difference of the means, less of it along the axes in which requests of one label differ
    (Marks & Tegmark, arXiv 2310.06824, call it a mass-mean probe). The shrinkage is ours.

    Args:
        harmful: (N, d) float64 states of one layer.
        harmless: (M, d) the same of harmless text.

    Returns:
        (d,) float64.
    """
    difference = difference_of_means(harmful, harmless)
    within = torch.cat([harmful - harmful.mean(0), harmless - harmless.mean(0)])
    within = within / max(1, len(within) - 2) ** 0.5
    total = within.square().sum()
    if not total > 0:  # every request of a label has the same state
        return difference
    ridge = _SHRINKAGE * total / within.shape[1]
    # (ridge I + X'X)^-1 v by Woodbury's identity, in N + M instead of d axes.
    inner = within @ within.T + ridge * torch.eye(len(within), dtype=within.dtype)
    along: torch.Tensor = torch.linalg.solve(inner, within @ difference)
    direction: torch.Tensor = (difference - within.T @ along) / ridge
    return direction


def prompt_shift(plain: torch.Tensor, guarded: torch.Tensor) -> torch.Tensor:
    """What a safety prompt adds to harmful text, (L, d) float64.

    After Self-Guard (arXiv 2602.00707), of which the abstract was read alone, and Zheng et al.
    (arXiv 2401.18018); the formula is ours.

    Args:
        plain: (L, N, d) states of harmful text.
        guarded: (L, N, d) states of the same requests behind a safety prompt.
    """
    return guarded.mean(1, dtype=torch.float64) - plain.mean(1, dtype=torch.float64)


ESTIMATORS: Final[Mapping[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]]] = {
    "pca": principal_component,
    "probe": linear_probe,
}
"""Those that need nothing but the states of both labels; `text_statistics` takes the difference of
the means by itself."""
