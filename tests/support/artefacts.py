"""Made-up artefacts of MARS from flat fields, whichever record holds them."""

import torch

from mars_export.methods.base import (
    Artefact,
    ArtefactRecord,
    CalibrationSource,
    Decision,
    Probe,
)
from mars_export.methods.mars.record import MarsRecord, Shift
from mars_export.methods.mars.view import rule_sizes, rule_tensors


def pushed_probes(modalities) -> list[Probe]:
    """One of every modality, which no model here can answer: nothing runs them."""
    return [
        Probe(
            modality=modality, prompt="a probe", stimuli=() if modality == "text" else (0,),
            expected=Decision(active=True, gate=1.0, strength=1.0, modality=modality),
        )
        for modality in modalities
    ]  # fmt: skip


def constant(beta: float | Shift) -> Shift:
    """A shift that does not depend on what is shown."""
    return beta if isinstance(beta, Shift) else Shift(tokens=[4], values=[beta], plain=4)


def of_each(modalities, value) -> dict:
    """The same number for every modality, unless each has its own."""
    return value if isinstance(value, dict) else dict.fromkeys(modalities, value)


def mars_artefact(fields: dict) -> ArtefactRecord:
    """An artefact's record; each field goes where it belongs, and `shift` names the modalities."""
    modalities = fields.get("modalities", tuple(fields["shift"]))
    fields = {"modalities": modalities, "probes": pushed_probes(modalities), **fields}
    source = {k: v for k, v in fields.items() if k in CalibrationSource.model_fields}
    record = {k: v for k, v in fields.items() if k in MarsRecord.model_fields}
    record |= {name: of_each(modalities, record[name]) for name in ("origin", "harmful")}
    record["shift"] = {m: constant(beta) for m, beta in record["shift"].items()}
    options = fields.get("options", {})
    assert set(fields) - {"options"} == {*source, *record, "probes"}
    return ArtefactRecord(
        method="mars",
        source=CalibrationSource(**source),
        record=MarsRecord(**record),
        options=options,
        rules={
            "layers": [record["layer"]],
            "positions": "turn_end",
            **rule_sizes(record["shift"]),
        },
        probes=fields["probes"],
    )


def with_tensors(record: ArtefactRecord, direction: torch.Tensor) -> Artefact:
    """The artefact with the tensors that ship."""
    numbers = record.record
    return Artefact.of(
        record.method, record.source, numbers, rules=record.rules, probes=record.probes,
        tensors=rule_tensors(numbers, direction, numbers.gain, numbers.radius),
    )  # fmt: skip
