"""kappa and rho: how far the push may go (method A3.4)."""

from typing import Final, NamedTuple

from mars_export.calibration.activations import Reader
from mars_export.calibration.measurements import Measured
from mars_export.calibration.options import Options
from mars_export.common.vocabulary import Modality
from mars_export.methods.mars.arithmetic import Bounds
from mars_export.methods.mars.edits import gated
from mars_export.methods.mars.layers import Landscape
from mars_export.methods.mars.selection import (
    GAIN,
    KL_LIMIT,
    RADIUS,
    Checks,
    gated_divergence,
)

__all__ = ["Tuning", "tune"]

_LADDER: Final = ((GAIN, RADIUS), (3.0, RADIUS), (GAIN, 1.5), (3.0, 1.5))
"""(kappa, rho), weakest first; weaker ones than the defaults are not needed, because the chosen
layer passed its KL check with the defaults."""

_TOLERANCE: Final = 0.5
"""Nats by which refusal beside a visual may fall short of refusal of the same text alone."""


class Tuning(NamedTuple):
    """The chosen strength and how far it gets.

    Attributes:
        gain: kappa.
        radius: rho.
        reached: Mean refusal log-odds of harmful text beside neutral visuals, steered; least over
            the visual modalities. None if there are none.
        goal: What `reached` should be at least. None if there are no visual modalities.
    """

    gain: float
    radius: float
    reached: float | None = None
    goal: float | None = None


def tune(
    reader: Reader,
    landscape: Landscape,
    layer: int,
    checks: Checks,
    harmful: dict[Modality, Measured],
    options: Options,
) -> Tuning:
    """Choose kappa and rho from text and neutral visuals.

    The defaults (2, 1) stay if harmful text beside neutral visuals, steered, is refused as strongly
    as the same text alone. Else the next stronger pair is taken at which it is, and whose KL on
    harmless inputs keeps within the limit; if there is none, the defaults stay, and
    `reached` or the layer's recorded checks say so.

    Args:
        reader: Runs the model.
        landscape: Scalars of every layer.
        layer: The chosen one.
        checks: Harmless validation requests of every modality.
        harmful: Harmful validation text, alone (`text`) and beside neutral visuals.
        options: `gain` and `radius` fix a value.

    Returns:
        kappa, rho and the refusal that they reach.
    """
    pairs = [(options.gain or gain, options.radius or radius) for gain, radius in _LADDER]
    if set(harmful) == {"text"}:
        return Tuning(*pairs[0])
    goal = float(harmful["text"].readout.log_odds.mean()) - _TOLERANCE
    tried: list[Tuning] = []
    for gain, radius in dict.fromkeys(pairs):
        bounds = landscape.bounds(layer, gain, radius)
        reached = _weakest_refusal(reader, landscape, layer, harmful, bounds)
        tried.append(Tuning(gain, radius, reached, goal))
        if not reached >= goal:  # NaN does not reach it either
            continue
        if gated_divergence(reader, landscape, checks, layer, bounds) <= KL_LIMIT:
            return tried[-1]
    return tried[0]


def _weakest_refusal(
    reader: Reader,
    landscape: Landscape,
    layer: int,
    harmful: dict[Modality, Measured],
    bounds: Bounds,
) -> float:
    """Least mean refusal log-odds over the visual modalities, steered."""
    means = []
    for modality, measured in harmful.items():
        if modality != "text":
            shift = float(landscape.shift[modality][layer])
            edit = gated(layer, landscape.direction(layer), shift, bounds)
            means.append(float(reader.read(measured.requests, edit=edit).log_odds.mean()))
    return min(means)
