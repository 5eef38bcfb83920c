"""Made-up artefacts of MARS from flat fields, whichever record holds them."""

import torch

from mars_export.methods.base import Artefact, ArtefactRecord, CalibrationSource
from mars_export.methods.mars.layers import rule_tensors
from mars_export.methods.mars.record import MarsRecord


def mars_artefact(fields: dict) -> ArtefactRecord:
    """An artefact's record; each field goes where it belongs, and `shift` names the modalities."""
    fields = {"modalities": tuple(fields["shift"]), "probes": [], **fields}
    source = {k: v for k, v in fields.items() if k in CalibrationSource.model_fields}
    record = {k: v for k, v in fields.items() if k in MarsRecord.model_fields}
    options = fields.get("options", {})
    assert set(fields) - {"options"} == {*source, *record, "probes"}
    return ArtefactRecord(
        method="mars",
        source=CalibrationSource(**source),
        record=MarsRecord(**record),
        options=options,
        rules={"layers": [record["layer"]], "positions": "turn_end"},
        probes=fields["probes"],
    )


def with_tensors(record: ArtefactRecord, direction: torch.Tensor) -> Artefact:
    """The artefact with the tensors that ship."""
    numbers = record.record
    return Artefact.of(
        record.method, record.source, numbers, rules=record.rules, probes=record.probes,
        tensors=rule_tensors(numbers, direction, numbers.gain, numbers.radius),
    )  # fmt: skip
