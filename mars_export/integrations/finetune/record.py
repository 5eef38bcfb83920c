"""Whether the calibration of a trained checkpoint still fits, as JSON. Free of torch."""

from typing import Literal

from mars_export.common.record import VersionedRecord
from mars_export.methods.base import Difference

__all__ = ["Drift"]


class Drift(VersionedRecord):
    """The steering that a checkpoint carries against a fresh calibration of its weights."""

    schema_version: int = 2
    name: str
    """Of the checkpoint's directory."""
    method: str
    layers: tuple[int, ...]
    """Decoder layers that are steered."""
    steering_sha256: str
    prompts: dict[str, str]
    """`harmful` and `harmless`: name of the set."""
    differences: tuple[Difference, ...]
    obstacle: str | None = None
    """Why the weights cannot be calibrated at that layer; there are no differences then."""

    @property
    def verdict(self) -> Literal["holds", "recalibrate", "lost"]:
        """`lost`: the weights cannot be calibrated where they are steered."""
        if self.obstacle is not None:
            return "lost"
        return "holds" if all(difference.fits for difference in self.differences) else "recalibrate"
