"""The numbers of MARS with a cosine gate, as JSON. Free of torch."""

from mars_export.calibration.source import DirectionSource, Label
from mars_export.common.record import Record
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import MethodRecord
from mars_export.methods.mars.record import Shift

__all__ = ["CosineRecord", "Gates"]


class Gates(Record):
    """What the gate does for plain decision requests of one label and modality."""

    label: Label
    modality: Modality
    n: int
    open: int
    """Requests whose gate is open."""
    median: float
    """Of the gate."""


class CosineRecord(MethodRecord):
    """Where and how the method steers; coordinates along the direction, residual-stream units."""

    layer: int
    separation: float
    """R, distance of the centroids of harmful and harmless text."""
    harmless: float
    """Coordinate of the center, the centroid of harmless text."""
    shift: dict[Modality, Shift]
    """beta, how far the center of a modality lies from that of text."""
    cap: float
    """c; no push goes beyond it."""
    gain: float
    """kappa: the push grows by kappa * R * gate."""
    radius: float
    """rho: no push is longer than rho * R."""
    direction: DirectionSource = "difference-of-means"
    layer_forced: bool = False
    layer_failures: list[str]
    """Causal checks of MARS that the layer failed; only a forced layer can have any."""
    gates: list[Gates]
