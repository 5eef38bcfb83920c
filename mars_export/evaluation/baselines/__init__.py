"""Baselines that take no checkpoint: a file for each, and the list of them. Free of torch."""

from typing import Final

from mars_export.evaluation.baselines.base import Baseline

__all__ = ["BASELINES", "CAPTIONS"]

CAPTIONS: Final = "captions"
"""What those need that change requests with pictures or clips alone."""

BASELINES: Final = {
    baseline.name: baseline
    for baseline in (
        Baseline("addition", "constant addition", "2406.11717"),
        Baseline("random-direction", "random directions, as long as the longest push"),
        Baseline("cast", "CAST", "2409.05907"),
        Baseline(
            "adasteer", "AdaSteer, refit", "2504.09466", ("harmful text that the model answers",)
        ),
        Baseline("shiftdc", "ShiftDC", "2502.13095", (CAPTIONS,)),
        Baseline("ecso", "ECSO", "2403.09572", (CAPTIONS, "answers about answers")),
        Baseline("guard", "guard in front", needs=("a second model",), takes_model=True),
    )
}
"""By name, in the order in which they are listed to people."""
