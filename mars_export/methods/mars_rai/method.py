"""The calibration of both: RAI first, then MARS on the model whose visual tokens RAI pushes.

Otherwise the shift of a modality would be measured on visual tokens that no request has.
"""

import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.visual_tokens import pushed
from mars_export.methods.base import Artefact
from mars_export.methods.mars.method import calibrate as calibrate_mars
from mars_export.methods.mars.record import MarsOptions, mars_record
from mars_export.methods.mars_rai.record import MarsRaiOptions, MarsRaiRecord
from mars_export.methods.rai.method import calibrate as calibrate_rai
from mars_export.methods.rai.record import RaiOptions, rai_record
from mars_export.methods.rai.rule import VisualRule

__all__ = ["calibrate"]


def calibrate(data: CalibrationData, options: MarsRaiOptions) -> Artefact:
    """Calibrate RAI, put it into the model, and calibrate MARS.

    Raises:
        ExportError: One of them cannot steer the model.
    """
    rai = calibrate_rai(data, RaiOptions(**_own(options, RaiOptions)))
    with pushed(data.model, _rule(rai), rai.record.source.modalities):
        mars = calibrate_mars(data, MarsOptions(**_own(options, MarsOptions)))
    seen, numbers = rai_record(rai.record), mars_record(mars.record)
    record = MarsRaiRecord(**dict(numbers), rai=seen.model_copy(update={"findings": []}))
    record = record.model_copy(update={"findings": [*numbers.findings, *seen.findings]})
    source = mars.record.source
    stimuli = {
        modality: some.model_copy(
            update={"count": some.count + rai.record.source.stimuli[modality].count}
        )
        for modality, some in source.stimuli.items()
    }
    seconds = source.seconds + rai.record.source.seconds
    return Artefact.of(
        "mars+rai",
        source.model_copy(update={"stimuli": stimuli, "seconds": seconds}),
        record,
        rules={**rai.record.rules, **mars.record.rules},
        tensors={**rai.tensors, **mars.tensors},
        # Of RAI those that name the token which is pushed: the others are like those of MARS.
        probes=[
            *mars.record.probes,
            *(probe for probe in rai.record.probes if probe.expected.position is not None),
        ],
    )


def _own(options: MarsRaiOptions, own: type[MarsOptions] | type[RaiOptions]) -> dict[str, object]:
    return {name: getattr(options, name) for name in own.model_fields}


def _rule(rai: Artefact) -> VisualRule:
    """The rule that ships."""
    source = rai.record.source
    rule = VisualRule(source.hidden_size, {**rai.record.rules, "modalities": source.modalities})
    tensors: dict[str, torch.Tensor] = {name: rai.tensors[name] for name in VisualRule.TENSORS}
    rule.load_state_dict(tensors)
    return rule
