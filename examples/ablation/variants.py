"""The parts of MARS, taken away one at a time by editing a calibration record."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from mars_export.calibration.source import Group
from mars_export.common.vocabulary import Modality
from mars_export.methods.base import Artefact, Probe
from mars_export.methods.mars.method import probe
from mars_export.methods.mars.record import MarsRecord, Shift, mars_record
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.view import rule_sizes, rule_tensors

__all__ = ["VARIANTS", "Variant"]

_FAR = 1e6
"""Multiples of R that no activation reaches."""


@dataclass(frozen=True)
class Variant:
    """One row of the ablation table."""

    name: str
    expected: str
    """What method notes and papers predict of it."""
    changes: Callable[[MarsRecord], dict[str, object]]
    """Fields of the record that the variant sets."""

    def edit(self, artefact: Artefact) -> Artefact:
        """The artefact with other numbers, and its probes as those numbers would have them."""
        before = mars_record(artefact.record)
        after = before.model_copy(update=self.changes(before))
        tensors = rule_tensors(after, artefact.tensors["direction"], after.gain, after.radius)
        rule = Rule(
            artefact.record.source.hidden_size,
            {"modalities": list(after.shift), **rule_sizes(after.shift)},
        )
        rule.load_state_dict(tensors)
        probes = []
        for old in artefact.record.probes:
            moved = before.shift[old.modality].at() - after.shift[old.modality].at()
            p = _coordinate(old, before) + moved
            probes.append(probe(after, rule, old.modality, old.prompt, old.stimuli, p))
        return Artefact.of(
            "mars", artefact.record.source, after,
            rules={**artefact.record.rules, **rule_sizes(after.shift)},
            tensors={**artefact.tensors, **tensors}, probes=probes,
        )  # fmt: skip


def _coordinate(old: Probe, record: MarsRecord) -> float:
    """Where a probe lies: by its gate, or the harmless request nearest below where that opens."""
    origin = record.origin[old.modality]
    if old.expected.gate:
        return origin + old.expected.gate * (record.harmful[old.modality] - origin)
    harmless = _coordinates(record, Group("harmless", old.modality))
    return max(p for p in harmless if p <= origin)


def _coordinates(record: MarsRecord, group: Group) -> list[float]:
    return next(line.values for line in record.projections if line.group == group)


def _everywhere(record: MarsRecord, origin: float) -> dict[Modality, float]:
    return dict.fromkeys(record.origin, origin)


def _constant(record: MarsRecord) -> dict[str, object]:
    """R along the direction for every request: the difference in means itself."""
    far = _FAR * record.separation
    return {
        "origin": _everywhere(record, record.harmless - far),
        "cap": record.harmful["text"] + far, "gain": 2.0, "radius": 1.0,
    }  # fmt: skip


def _no_recentering(record: MarsRecord) -> dict[str, object]:
    """No modality shift is taken off; the gate opens where harmless text alone says."""
    text = torch.tensor(_coordinates(record, Group("harmless", "text"))).quantile(0.95)
    origin = max(record.harmless, float(text))
    unmoved = Shift(tokens=[0], values=[0.0])
    return {
        "origin": _everywhere(record, origin), "shift": dict.fromkeys(record.shift, unmoved)
    }  # fmt: skip


def _no_gate(record: MarsRecord) -> dict[str, object]:
    """Every request is pushed as far as the trust region allows."""
    shut = record.harmless - _FAR * record.separation
    return {"origin": _everywhere(record, shut), "gain": 2.0}


def _midpoint(record: MarsRecord) -> dict[str, object]:
    return {"origin": _everywhere(record, (record.harmful["text"] + record.harmless) / 2)}


def _safe_centroid(record: MarsRecord) -> dict[str, object]:
    return {"origin": _everywhere(record, record.harmless)}


VARIANTS = (
    Variant("MARS", "refuses harm in every modality, leaves the rest alone", lambda _: {}),
    Variant("constant steering", "over-refuses everything", _constant),
    Variant("no re-centering", "over-refuses harmless pictures", _no_recentering),
    Variant("no gate", "over-refuses everything within the trust region", _no_gate),
    Variant("gate opens at the midpoint", "misses harmful pictures", _midpoint),
    Variant("gate opens at the harmless centroid", "over-refuses some", _safe_centroid),
)
