"""How near the visual tokens of neutral stimuli are to the prototypes."""

from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, NamedTuple

import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import FIRST_STIMULUS, Part, stimulus
from mars_export.calibration.meter import Meter
from mars_export.calibration.visual_tokens import read_visual_tokens
from mars_export.common.vocabulary import Modality
from mars_export.inputs.drawings import KINDS
from mars_export.inputs.requests import Request
from mars_export.methods.rai.record import Kind, Point
from mars_export.methods.rai.rule import VisualRule

__all__ = ["Shown", "curve", "kinds", "score", "threshold_of"]

_PROMPT: Final = "Describe it."
"""Beside the stimuli: what stands beside a visual token does not change its score."""

_ABOVE: Final = 10
"""Tokens above the threshold from which enough stimuli have been seen."""
_MOST: Final = 512
"""Stimuli that are looked at."""
_PIECE: Final = 32
"""Stimuli that are drawn at a time."""


class Shown(NamedTuple):
    """The n visual tokens of one stimulus.

    cosines: (n, K) with each prototype. lengths: (n,).
    """

    number: int
    kind: str
    cosines: torch.Tensor
    lengths: torch.Tensor


def score(
    data: CalibrationData, rule: VisualRule, modality: Modality, part: Part, share: float,
    meter: Meter, count: int | None = None,
) -> list[Shown]:  # fmt: skip
    """Show neutral stimuli to a model: so many, or as a threshold for this share needs.

    Returns:
        What was seen of each, in the order of their indices.
    """
    first, shown = FIRST_STIMULUS[part], list[Shown]()

    def read(h: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return rule.to(h.device).cosines(h).cpu(), h.norm(dim=-1).cpu()

    def see(some: list[Request]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        size = data.measurement.batch_size
        return read_visual_tokens(data.model, data.processor, some, read, size, meter)

    def enough() -> bool:
        if count is not None:
            return len(shown) >= count
        tokens = sum(len(one.lengths) for one in shown)
        return len(shown) >= _MOST or (
            len(shown) >= data.measurement.pairs and tokens * share >= _ABOVE
        )

    while not enough():
        size = _PIECE if count is None else min(_PIECE, count - len(shown))
        indices = range(first + len(shown), first + len(shown) + size)
        media = [stimulus(modality, i, data.measurement) for i in indices]
        requests = [Request(_PROMPT, (one,)) for one in media]
        rows = data.measurement.batch_size
        parts = [requests[start : start + rows] for start in range(0, size, rows)]
        seen = chain.from_iterable(data.processes.each(parts, see))
        shown += [
            Shown(i, one.kind, *found) for i, one, found in zip(indices, media, seen, strict=True)
        ]
    rule.cpu()
    return shown


def threshold_of(shown: Sequence[Shown], share: float) -> float | None:
    """The cosine above which this share of the tokens lies, or less where many are alike.

    None where no token would lie above it.
    """
    largest = torch.cat([one.cosines.amax(-1) for one in shown])
    above = int(share * len(largest))
    if not above:
        return None
    ordered = largest.sort(descending=True).values
    below = ordered[above]
    higher = ordered[ordered > below]
    # Between two values, so that rounding moves no token to the other side.
    return float(below + higher[-1]) / 2 if len(higher) else None


def curve(
    chosen: Sequence[Shown], held_out: Sequence[Shown], shares: Iterable[float]
) -> list[Point]:
    """What thresholds for several shares touch of other stimuli."""
    largest = [one.cosines.amax(-1) for one in held_out]
    points = []
    for share in sorted(shares):
        threshold = threshold_of(chosen, share)
        if threshold is None:
            continue
        above = [row > threshold for row in largest]
        points.append(
            Point(
                share=share,
                threshold=threshold,
                tokens=float(torch.cat(above).float().mean()),
                stimuli=sum(bool(row.any()) for row in above) / len(above),
            )
        )
    return points


def kinds(held_out: Sequence[Shown], threshold: float) -> list[Kind]:
    """What a threshold touches of each kind of stimulus."""
    found = []
    for kind in sorted({one.kind for one in held_out}, key=list(KINDS).index):
        above = [one.cosines.amax(-1) > threshold for one in held_out if one.kind == kind]
        found.append(
            Kind(
                kind=kind,
                stimuli=len(above),
                tokens=sum(len(row) for row in above),
                touched_tokens=sum(int(row.sum()) for row in above),
                touched_stimuli=sum(bool(row.any()) for row in above),
            )
        )
    return found
