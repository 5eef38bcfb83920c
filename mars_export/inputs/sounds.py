"""Sounds of users' files, decoded and brought to the rate that a processor takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["Sound"]


@dataclass(frozen=True, eq=False)
class Sound:
    """One channel of sound.

    Attributes:
        samples: (N,) float32, from -1 to 1.
        rate: Samples a second.
    """

    samples: NDArray[np.float32]
    rate: int

    @property
    def seconds(self) -> float:
        """How long it is."""
        return len(self.samples) / self.rate

    def at(self, rate: int) -> Sound:
        """The same at another number of samples a second."""
        if rate == self.rate:
            return self
        import soxr

        return Sound(soxr.resample(self.samples, self.rate, rate).astype("float32"), rate)
