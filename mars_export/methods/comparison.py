"""What methods share in comparing a stored steering with a fresh calibration. Free of torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from mars_export.methods.base import Difference

if TYPE_CHECKING:
    import torch

__all__ = ["LEAST_COSINE", "compare_directions"]

LEAST_COSINE: Final = 0.9
"""A push of length s along the stored direction reaches s * cosine along the present one: below
this limit more than a tenth of it is lost."""


def compare_directions(stored: torch.Tensor, fresh: torch.Tensor) -> Difference:
    """The cosine of two vectors (d,) of any length."""
    old, new = stored.double(), fresh.double()
    cosine = float(old @ new / (old.norm() * new.norm()))
    return Difference(
        name="direction",
        value=cosine,
        limit=LEAST_COSINE,
        fits=cosine >= LEAST_COSINE,
        sentence=f"the refusal direction has cosine {cosine:.3f} with the stored one",
    )
