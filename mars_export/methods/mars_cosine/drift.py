"""Whether direction, centers and strength of a trained checkpoint still fit its weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mars_export.methods.base import Artefact, Difference
from mars_export.methods.comparison import compare_directions
from mars_export.methods.mars.drift import shift_errors
from mars_export.methods.mars_cosine.record import CosineRecord

if TYPE_CHECKING:
    import torch

__all__ = ["compare"]

_FURTHEST: Final = 0.25
"""How far a center may be off, over R: a quarter of the way from harmless to harmful text."""

_LEAST: Final = 0.5
"""Of the gate at the mean of harmful text, and of the length of a push, what has to be left."""


def compare(
    rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
) -> list[Difference]:
    """Compare the tensors of `Rule` with those of a fresh calibration at the same layer."""
    record, fresh = artefact.record.record, artefact.tensors
    assert isinstance(record, CosineRecord)
    failures, modalities = record.layer_failures, list(artefact.record.source.modalities)
    gate, longest = _gate(tensors, fresh), float(fresh["bounds"][0, 4] / tensors["bounds"][0, 4])
    differences = [
        compare_directions(tensors["direction"], fresh["direction"]),
        Difference(
            name="layer", value=len(failures), limit=0, fits=not failures,
            sentence=failures[0] if failures else f"layer {record.layer} passes its causal checks",
        ),
        Difference(
            name="harmful text", value=gate, limit=_LEAST, fits=gate >= _LEAST,
            sentence=f"the mean of harmful text opens the gate {gate:.2f} times as far as a fresh "
            "calibration's",
        ),
    ]  # fmt: skip
    moved = record.harmless - float(tensors["center"] @ tensors["direction"])
    for row, modality in enumerate(rules["modalities"]):
        if modality not in modalities:
            continue
        errors = shift_errors(tensors, row, fresh, modalities.index(modality))
        worst = max(((moved + error) / record.separation for error in errors), key=abs)
        differences.append(
            Difference(
                name=f"center of {modality}", value=worst, limit=_FURTHEST,
                fits=abs(worst) <= _FURTHEST,
                sentence=f"the center of {modality} is off by up to {worst:+.2f} R",
            )
        )  # fmt: skip
    strength = Difference(
        name="strength", value=longest, limit=1 / _LEAST, fits=longest <= 1 / _LEAST,
        sentence=f"a fresh calibration pushes {longest:.2f} times as far",
    )  # fmt: skip
    return [*differences, strength]


def _gate(stored: Mapping[str, torch.Tensor], fresh: Mapping[str, torch.Tensor]) -> float:
    """The gate at the mean of harmful text, over that of the fresh calibration."""
    from torch.nn.functional import cosine_similarity

    old, new = (
        cosine_similarity(fresh["centroid_harmful"] - some["center"], some["direction"], dim=0)
        for some in (stored, fresh)
    )
    return float(old / new)
