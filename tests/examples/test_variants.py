"""Variants of MARS differ from it in the part that their name says, on a planted model."""

import pytest
import torch
from variants import RULES, VARIANTS, measured

from mars_export.calibration.data import CalibrationData
from mars_export.methods.mars.record import MarsOptions
from support.planted import MEASUREMENT, PROCESSOR, PlantedModel, calibrated, prompt_sets

IMAGE = 1


@pytest.fixture(scope="module")
def planted():
    data = CalibrationData(
        PlantedModel(), PROCESSOR, prompt_sets(), ("text", "image"), measurement=MEASUREMENT
    )
    return measured(data)


@pytest.fixture(scope="module")
def parts(planted):
    return dict(planted.parts())


def pushes(rules, p, visual=4, turn=0, modality=IMAGE):
    """Strength at raw coordinates p, in a request of this context."""
    ((_, tensors),) = rules.tensors.items()
    rule = rules.rule(len(tensors["direction"]), rules.stated)
    rule.load_state_dict(tensors)
    h = torch.as_tensor(p).unsqueeze(-1) * tensors["direction"]
    context = torch.tensor([modality, visual, turn]).expand(len(p), 3)
    return rule(h.float(), context)[1]["strength"]


def test_the_whole_method_is_what_a_calibration_ships(parts):
    artefact = calibrated("mars", MarsOptions())
    ((layer, tensors),) = parts["MARS"].tensors.items()
    assert [layer] == artefact.record.layers
    for name, tensor in tensors.items():
        torch.testing.assert_close(tensor, artefact.tensors[name])


def test_every_variant_runs_and_differs_from_the_method(parts, planted):
    view = planted.view
    grid = torch.linspace(-1, 4, 60) * view.separation + view.harmless
    places = [(4, 0, 0), (4, 0, IMAGE), (16, 0, IMAGE), (4, 2, IMAGE)]
    whole = torch.stack([pushes(parts["MARS"], grid, *place) for place in places])
    assert set(parts) == {variant.name for variant in VARIANTS}
    same = set()
    for name, rules in parts.items():
        assert RULES[rules.rule.__name__] is rules.rule
        strengths = torch.stack([pushes(rules, grid, *place) for place in places])
        assert strengths.isfinite().all()
        if torch.equal(strengths, whole):
            same.add(name)
    # The planted model compresses nothing, its turns and further pictures move nothing, and its cap
    # is so near that no push gets as long as the radius.
    allowed = {
        "MARS", "scale of text for all", "one shift per modality", "no shift of turns",
        "one origin for all (O3)", "no radius",
    }  # fmt: skip
    assert same <= allowed


def test_bounds_are_off_where_the_name_says(parts, planted):
    view = planted.view
    far = torch.tensor([view.cap + 10 * view.separation])
    assert pushes(parts["MARS"], far) == 0
    assert pushes(parts["no cap"], far) == pytest.approx(
        planted.tuning.radius * view.separation, rel=1e-4
    )
    assert pushes(parts["no cap, no radius"], far) > 2 * view.separation
    low = torch.tensor([view.harmless - view.separation])
    assert pushes(parts["MARS"], low) == 0
    assert pushes(parts["no gate"], low) > 0
    for place in (low, far):
        assert pushes(parts["constant push"], place) == pytest.approx(view.separation, rel=1e-4)


def test_without_recentering_a_picture_is_measured_as_text(parts, planted):
    grid = torch.linspace(0, 2, 20) * planted.view.separation + planted.view.harmless
    bare = parts["no re-centering"]
    torch.testing.assert_close(pushes(bare, grid, modality=IMAGE), pushes(bare, grid, modality=0))
    assert not torch.equal(
        pushes(parts["MARS"], grid, modality=IMAGE), pushes(parts["MARS"], grid, modality=0)
    )


def test_the_cosine_gate_opens_at_the_center(parts, planted):
    view = planted.view
    center = parts["cosine gate (ASTRA)"].tensors[view.layer]["center"]
    torch.testing.assert_close(center, view.centroids["harmless"])
    beta = view.shift["text"].at()
    below, above = (torch.tensor([view.harmless + beta + x * view.separation]) for x in (-0.2, 0.2))
    assert pushes(parts["cosine gate (ASTRA)"], below, modality=0) == 0
    assert pushes(parts["cosine gate (ASTRA)"], above, modality=0) > 0


def test_curves_and_layers_are_named_by_what_they_set(planted):
    size, reserves = planted.view.separation, []
    for name, rules in planted.strengths():
        kind, value = name.split()
        column = {"kappa": 3, "rho": 4, "reserve": 0}[kind]
        found = rules.tensors[planted.view.layer]["bounds"][:, column]
        if kind == "reserve":
            away = (found - planted.view.harmless) / size
            reserves.append((float(value), *away.tolist()))
        else:
            torch.testing.assert_close(found / size, torch.full((2,), float(value)))
    (_, text, image), *further = reserves
    for reserve, opens, later in further:
        assert (opens, later - image) == pytest.approx((text, reserve), abs=1e-3)
    layers = dict(planted.every_layer())
    assert f"by scores: layer {planted.view.layer}" in layers
    singles = {name: rules for name, rules in layers.items() if name.startswith("layer ")}
    assert len(singles) >= 5
    for name, rules in singles.items():
        assert list(rules.tensors) == [int(name.split()[1])]
