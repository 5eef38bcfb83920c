"""What a neutral stimulus alone does to the residual stream, and where the gate opens; float64.

A3.n are sections of docs/method.md.
"""

from collections.abc import Sequence
from typing import Final

import torch

from mars_export.calibration.measurements import Measurements, beside, neutral_requests
from mars_export.common.vocabulary import Modality

__all__ = ["gate_origin", "measure_shift", "paired_shift"]

_QUANTILE: Final = 0.95
"""Share of harmless validation inputs whose gate is exactly 0 (A3.3)."""


def measure_shift(baseline: Measurements, modality: Modality) -> torch.Tensor:
    """Run harmless training text beside neutral stimuli of one modality.

    Returns:
        (L, d) float64, the shift of the modality (A3.2).
    """
    measurement, train = baseline.data.measurement, baseline.text["harmless"].direction
    neutral = neutral_requests(modality, measurement.pairs, measurement)
    pairs = range(measurement.pairs)
    readout = baseline.reader.read(beside(train.requests, neutral, pairs), states=True)
    alone = train.readout.states
    return paired_shift(alone[:, [i % alone.shape[1] for i in pairs]], readout.states)


def paired_shift(text: torch.Tensor, stimulus: torch.Tensor) -> torch.Tensor:
    """Paired shift b = mean of h(t, v) - h(t) over harmless prompts t and neutral stimuli v (C1).

    Args:
        text: (L, N, d) states of the prompts alone.
        stimulus: (L, N, d) states of the same prompts, each beside a neutral stimulus.

    Returns:
        (L, d) float64. Its coordinate along the direction is beta (A3.2).
    """
    rows = [(v.double() - t.double()).mean(0) for t, v in zip(text, stimulus, strict=True)]
    return torch.stack(rows)


def gate_origin(groups: Sequence[torch.Tensor], harmless: torch.Tensor) -> torch.Tensor:
    """Coordinate o at which the gate opens (O3 of A3.3).

    It is the largest of p_s and the 95 % quantiles of the groups, so that each kind of harmless
    input has gate 0 at least that often.

    Args:
        groups: Re-centered coordinates (L, N_i) of harmless validation inputs, one tensor per
            modality.
        harmless: (L,) p_s.

    Returns:
        (L,) float64.
    """
    quantiles = [group.quantile(_QUANTILE, -1, interpolation="higher") for group in groups]
    return torch.stack([harmless, *quantiles]).amax(0)
