"""How far the stored prototypes and thresholds are from those that trained weights need."""

from collections.abc import Mapping
from typing import Any, Final

import torch

from mars_export.methods.base import Artefact, Difference
from mars_export.methods.comparison import LEAST_COSINE
from mars_export.methods.rai.record import rai_record

__all__ = ["compare"]

_FACTOR: Final = 10
"""Around a share of 0.1 % it gives the range that is reported of the paper."""


def compare(
    rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
) -> list[Difference]:
    """The words' embeddings, and how many visual tokens the stored thresholds touch now.

    Args:
        rules: `config.steering` of the checkpoint.
        tensors: Its steering tensors.
        artefact: A calibration of the trained weights.
    """
    old, new = tensors["prototypes"].double(), artefact.tensors["prototypes"].double()
    cosine = float(torch.nn.functional.cosine_similarity(old, new, dim=-1).min())
    differences = [
        Difference(
            name="prototypes",
            value=cosine,
            limit=LEAST_COSINE,
            fits=cosine >= LEAST_COSINE,
            sentence=f"the prototype that moved most has cosine {cosine:.3f} with the stored one",
        )
    ]
    share = rai_record(artefact.record).share
    for threshold, modality in zip(tensors["thresholds"], rules["modalities"], strict=True):
        cosines = artefact.tensors.get(f"cosines_{modality}")
        if cosines is None:
            continue
        touched = float((cosines > threshold).double().mean())
        differences.append(
            Difference(
                name=f"share of {modality} tokens",
                value=touched,
                limit=share * _FACTOR,
                fits=share / _FACTOR <= touched <= share * _FACTOR,
                sentence=f"of neutral {modality} tokens {touched:.2%} lie above the stored "
                f"threshold, chosen for {share:.2%}",
            )
        )
    return differences
