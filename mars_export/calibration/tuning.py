"""kappa and rho: how far the push may go (method A3.4)."""

from typing import Final

from mars_export.calibration.activations import Reader
from mars_export.calibration.edits import gated
from mars_export.calibration.landscape import Landscape
from mars_export.calibration.measurements import Measured
from mars_export.calibration.options import Options
from mars_export.calibration.selection import (
    GAIN,
    KL_LIMIT,
    RADIUS,
    Checks,
    gated_divergence,
)
from mars_export.methods.mars import Bounds
from mars_export.vocabulary import Modality

__all__ = ["tune"]

_LADDER: Final = ((GAIN, RADIUS), (3.0, RADIUS), (GAIN, 1.5), (3.0, 1.5))
"""(kappa, rho), weakest first; weaker ones than the defaults are not needed, because the chosen
layer passed its KL check with the defaults."""

_TOLERANCE: Final = 0.5
"""Nats by which refusal beside a visual may fall short of refusal of the same text alone."""


def tune(
    reader: Reader,
    landscape: Landscape,
    layer: int,
    checks: Checks,
    harmful: dict[Modality, Measured],
    options: Options,
) -> tuple[float, float]:
    """Choose kappa and rho from text and neutral visuals.

    The defaults (2, 1) stay if harmful text beside neutral visuals, steered, is refused as strongly
    as the same text alone. Else the next stronger pair is taken at which it is, and whose KL on
    harmless inputs keeps within the limit; if there is none, the defaults stay.

    Args:
        reader: Runs the model.
        landscape: Scalars of every layer.
        layer: The chosen one.
        checks: Harmless validation requests of every modality.
        harmful: Harmful validation text, alone (`text`) and beside neutral visuals.
        options: `gain` and `radius` fix a value.

    Returns:
        kappa and rho.
    """
    pairs = [(options.gain or gain, options.radius or radius) for gain, radius in _LADDER]
    pairs = list(dict.fromkeys(pairs))
    goal = float(harmful["text"].readout.log_odds.mean()) - _TOLERANCE
    for gain, radius in pairs if len(pairs) > 1 else ():
        bounds = landscape.bounds(layer, gain, radius)
        if _weakest_refusal(reader, landscape, layer, harmful, bounds) < goal:
            continue
        if gated_divergence(reader, landscape, checks, layer, bounds) <= KL_LIMIT:
            return gain, radius
    return pairs[0]


def _weakest_refusal(
    reader: Reader,
    landscape: Landscape,
    layer: int,
    harmful: dict[Modality, Measured],
    bounds: Bounds,
) -> float:
    """Least mean refusal log-odds over the visual modalities, steered."""
    means = [float("inf")]
    for modality, measured in harmful.items():
        if modality != "text":
            shift = float(landscape.shift[modality][layer])
            edit = gated(layer, landscape.direction(layer), shift, bounds)
            means.append(float(reader.read(measured.requests, edit=edit).log_odds.mean()))
    return min(means)
