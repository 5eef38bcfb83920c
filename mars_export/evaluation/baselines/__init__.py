"""Baselines that take no checkpoint: a file for each, and the list of them. Free of torch."""

from typing import Final

from mars_export.evaluation.baselines.base import Baseline

__all__ = ["BASELINES"]

BASELINES: Final = {
    baseline.name: baseline
    for baseline in (
        Baseline("addition", "constant addition", "2406.11717"),
        Baseline("random-direction", "random directions"),
        Baseline("cast", "CAST", "2409.05907"),
    )
}
"""By name, in the order in which they are listed to people."""
