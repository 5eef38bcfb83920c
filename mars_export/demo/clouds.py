"""Where a request lies along the refusal direction, beside the requests of the calibration.

Places are between the centroids of harmless and harmful text, at 0 and 1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mars_export.common.vocabulary import Modality
from mars_export.methods.base import ArtefactRecord
from mars_export.methods.mars.record import MarsRecord

__all__ = ["Clouds", "Scale", "scale_of"]


@dataclass(frozen=True)
class Clouds:
    """Requests of one modality that the gate was set on.

    Attributes:
        harmless: Their places.
        harmful: Their places; beside a modality, harmful text with neutral stimuli.
        opens: Where the gate opens.
    """

    harmless: tuple[float, ...]
    harmful: tuple[float, ...]
    opens: float


@dataclass(frozen=True)
class Scale:
    """Turns coordinates of a method into places.

    Attributes:
        zero: Coordinate of the centroid of harmless text.
        unit: Distance of the two centroids.
        clouds: What the calibration saw, by modality.
    """

    zero: float
    unit: float
    clouds: Mapping[Modality, Clouds]

    def place(self, coordinate: float) -> float:
        """Where a coordinate lies."""
        return (coordinate - self.zero) / self.unit


def scale_of(artefact: ArtefactRecord | None) -> Scale | None:
    """The scale of a calibration; None for methods that do not gate along a direction."""
    record = artefact.record if artefact else None
    if not isinstance(record, MarsRecord):
        return None

    def cloud(label: str, modality: Modality) -> tuple[float, ...]:
        return tuple(
            (value - record.harmless) / record.separation
            for line in record.projections
            if (line.label, line.modality) == (label, modality)
            for value in line.values
        )

    clouds = {
        modality: Clouds(
            cloud("harmless", modality),
            cloud("harmful", modality),
            (origin - record.harmless) / record.separation,
        )
        for modality, origin in record.origin.items()
    }
    return Scale(record.harmless, record.separation, clouds)
