"""Where gates open beside conditions that lie near harmful text, on a planted model."""

from dataclasses import replace

import pytest
import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import measure
from mars_export.methods.mars.layers import score_layers
from mars_export.methods.mars.material import gather
from mars_export.methods.mars.record import MarsOptions
from mars_export.methods.mars.shift import Shifts
from mars_export.methods.mars.view import view_of
from support import planted

LAYER = 3
SYSTEM = "<unk>"
"""A word of system prompts alone."""


def calibration(model):
    return planted.calibrated("mars", MarsOptions(layer=LAYER), model).record.record


def treatments(conditions, name):
    return {c.modality: c.treatment for c in conditions if c.name == name}


@pytest.fixture(scope="module")
def measured():
    """Layers and material of a model that system prompts move a little."""
    model = planted.PlantedModel(odd={SYSTEM: 0.15})
    baseline = measure(
        CalibrationData(
            model, planted.PROCESSOR, planted.prompt_sets(), ("text", "image"),
            measurement=planted.MEASUREMENT,
        )
    )  # fmt: skip
    return score_layers(baseline), gather(baseline)


def test_what_moves_the_coordinate_is_in_the_origins_mixture(measured):
    view = view_of(*measured, LAYER)
    assert treatments(view.conditions, "system prompt") == {"text": "origin", "image": "origin"}
    for condition in view.conditions:
        gate = view.origin[condition.modality] - view.harmless
        assert condition.bound * view.separation <= gate + 1e-9
    assert not view.squeezed


def test_pictures_need_what_text_needs_and_the_reserve(measured):
    layers, material = measured
    text, (picture, *_) = (material.harmless[m] for m in ("text", "image"))
    readout = picture.answered.readout
    low = replace(readout, coordinates=readout.coordinates - 100)
    calm = replace(picture, divided=False, answered=replace(picture.answered, readout=low))
    changed = replace(material, harmless={"text": text, "image": [calm]})
    for reserve in (0.0, 0.125):
        view = view_of(layers, changed, LAYER, reserve)
        above = (view.origin["image"] - view.origin["text"]) / view.separation
        assert above == pytest.approx(reserve)
        assert view.origin["text"] == view_of(layers, material, LAYER, reserve).origin["text"]


def test_rounding_is_no_shift(measured):
    layers, material = measured
    usual = material.shifts["image"]
    source = torch.Generator().manual_seed(0)
    for _ in range(8):  # in about half of them the two ways of adding differ
        fewer = torch.randn(2, len(layers), generator=source, dtype=torch.float64)
        values = torch.cat([usual.values[:1], fewer, usual.values[1:]])
        shifts = Shifts([0, 1, 2, 4, 8, 16], values, usual.turns, usual.plain)
        changed = replace(material, shifts={**material.shifts, "image": shifts})
        view = view_of(layers, changed, LAYER)
        assert treatments(view.conditions, "system prompt")["image"] == "origin"


def test_an_origin_that_no_condition_fits_is_held_down(measured):
    view = view_of(*measured, LAYER, reserve=0.7)
    assert view.squeezed == ("image",)
    assert treatments(view.conditions, "two stimuli") == {"image": "left out"}
    width = (view.harmful["image"] - view.origin["image"]) / view.separation
    assert width == pytest.approx(0.25)


def test_a_condition_near_harmful_text_is_left_out_and_reported():
    record = calibration(planted.PlantedModel(harm=8.0, threshold=7.5, odd={SYSTEM: 0.75}))
    assert treatments(record.conditions, "system prompt")["text"] == "left out"
    width = (record.harmful["text"] - record.origin["text"]) / record.separation
    assert width > 0.5
    said = "As text, harmless requests of the kind 'system prompt' lie too near"
    assert [line.startswith(said) for line in record.findings].count(True) == 1
    assert not any("'system prompt' open the gate" in line for line in record.missed)


@pytest.mark.parametrize(
    ("kept", "scaled", "said"),
    [(1.0, False, None), (0.8, False, "was not corrected"), (0.7, True, "was corrected")],
)
def test_the_scale_of_a_compressed_modality_is_corrected_where_it_helps(kept, scaled, said):
    record = calibration(planted.PlantedModel(kept=kept))
    assert record.compression["image"] == pytest.approx(kept, abs=0.08)
    assert (record.harmful["image"] < record.harmful["text"]) == scaled
    assert [said in line for line in record.findings] == ([] if said is None else [True])
