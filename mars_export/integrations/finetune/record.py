"""Whether the calibration of a trained checkpoint still fits, as JSON. Free of torch."""

from typing import Literal

from mars_export.common.record import VersionedRecord
from mars_export.methods.base import Difference

__all__ = ["Drift"]


class Drift(VersionedRecord):
    """The steering that a checkpoint carries against a fresh calibration of its weights."""

    schema_version: int = 3
    name: str
    """Of the checkpoint's directory."""
    method: str
    layers: tuple[int, ...]
    """Decoder layers that are steered."""
    steering_sha256: str
    prompts: dict[str, str]
    """`harmful` and `harmless`: name of the set."""
    differences: tuple[Difference, ...]
    same_prompts: bool | None = None
    """Whether these are the prompts of the calibration; None where the checkpoint does not say."""
    obstacle: str | None = None
    """Why the weights cannot be calibrated at that layer; there are no differences then."""

    @property
    def verdict(self) -> Literal["holds", "recalibrate", "lost", "cannot tell"]:
        """`lost`: the weights cannot be calibrated where they are steered."""
        if self.obstacle is None and all(difference.fits for difference in self.differences):
            return "holds"
        if not self.same_prompts:  # other prompts look like training
            return "cannot tell"
        return "recalibrate" if self.obstacle is None else "lost"
