"""The parts of MARS, taken away one at a time by editing a calibration record."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mars_export.methods.mars.arithmetic import Bounds, gate, strength
from mars_export.methods.mars.record import CalibrationRecord, Probe

__all__ = ["VARIANTS", "Variant"]

_FAR = 1e6
"""Multiples of R that no activation reaches."""


@dataclass(frozen=True)
class Variant:
    """One row of the ablation table."""

    name: str
    expected: str
    """What method notes and papers predict of it."""
    edit: Callable[[CalibrationRecord], CalibrationRecord]


def _edited(record: CalibrationRecord, **changes: object) -> CalibrationRecord:
    """The record with other scalars, and its probes as those scalars would have them."""
    changed = record.model_copy(update=changes)
    moved = {m: record.shift[m] - changed.shift[m] for m in record.shift}
    bounds = Bounds.of(changed)
    probes = [
        _probe(probe, probe.projection + moved[probe.modality], bounds) for probe in record.probes
    ]
    return changed.model_copy(update={"probes": probes})


def _probe(probe: Probe, projection: float, bounds: Bounds) -> Probe:
    p = torch.tensor(projection, dtype=torch.float64)
    push = {"gate": float(gate(p, bounds)), "strength": float(strength(p, bounds))}
    return probe.model_copy(update={"projection": projection, **push})


def _constant(record: CalibrationRecord) -> CalibrationRecord:
    """R along the direction for every request: the difference in means itself."""
    far = _FAR * record.separation
    return _edited(
        record, origin=record.harmless - far, cap=record.harmful + far, gain=2.0, radius=1.0
    )


def _no_recentering(record: CalibrationRecord) -> CalibrationRecord:
    """No modality shift is taken off; the gate opens where harmless text alone says."""
    text = torch.tensor(record.projections["harmless text"]).quantile(0.95)
    origin = max(record.harmless, float(text))
    return _edited(record, origin=origin, shift=dict.fromkeys(record.shift, 0.0))


def _no_gate(record: CalibrationRecord) -> CalibrationRecord:
    """Every request is pushed as far as the trust region allows."""
    return _edited(record, origin=record.harmless - _FAR * record.separation, gain=2.0)


def _midpoint(record: CalibrationRecord) -> CalibrationRecord:
    return _edited(record, origin=(record.harmful + record.harmless) / 2)


def _safe_centroid(record: CalibrationRecord) -> CalibrationRecord:
    return _edited(record, origin=record.harmless)


VARIANTS = (
    Variant("MARS", "refuses harm in every modality, leaves the rest alone", lambda record: record),
    Variant("constant steering", "over-refuses everything", _constant),
    Variant("no re-centring", "over-refuses harmless pictures", _no_recentering),
    Variant("no gate", "over-refuses everything within the trust region", _no_gate),
    Variant("gate opens at the midpoint", "misses harmful pictures", _midpoint),
    Variant("gate opens at the harmless centroid", "over-refuses some", _safe_centroid),
)
