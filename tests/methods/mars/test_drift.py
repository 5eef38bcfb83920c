"""Every comparison with a fresh calibration is able to fail, each at its limit."""

import pytest
import torch
from pydantic import ValidationError

from mars_export.common.errors import ExportError
from mars_export.methods import method_named
from support import tiny

RULES = {"layers": [2], "positions": "turn_end", "modalities": ["text", "image", "video"]}
ORIGIN, HARMFUL, CAP, SLOPE, LONGEST = range(5)
GATE, REACH = 30.0, 0.5
"""p_u - o, and z at which the push reaches its full length, of the calibration below."""


def artefact(**changes):
    made = tiny.artefact("qwen3_vl")
    bounds = torch.tensor([-10.0, 20.0, 600.0, 800.0, 400.0])
    for index, value in changes.pop("bounds", {}).items():
        bounds[index] = value
    shift = torch.tensor([0.0, 3.0, -5.0])
    shift[1] += changes.pop("image", 0.0)
    direction = made.tensors["direction"] + changes.pop("turned", 0.0)
    tensors = {"direction": direction, "shift": shift, "bounds": bounds}
    record = made.record.record.model_copy(update=changes)
    whole = made.record.model_copy(update={"record": record})
    return type(made)(whole, {**made.tensors, **tensors})


def unlike(**changes):
    """Names of what does not fit, after checking that all is compared."""
    stored, fresh = artefact(), artefact(**changes)
    differences = method_named("mars").compare(RULES, stored.tensors, fresh)
    assert [d.name for d in differences] == [
        "direction", "layer", "gate origin", "harmful text", "shift of image", "shift of video",
        "strength",
    ]  # fmt: skip
    return {d.name for d in differences if not d.fits}


def test_nothing_moved():
    assert unlike() == set()


@pytest.mark.parametrize(
    ("kept", "broken", "name"),
    [
        ({"bounds": {ORIGIN: -10 + 7.4}}, {"bounds": {ORIGIN: -10 + 7.6}}, "gate origin"),
        ({"bounds": {ORIGIN: -10 - 7.4}}, {"bounds": {ORIGIN: -10 - 7.6}}, "gate origin"),
        ({"bounds": {HARMFUL: 5.1}}, {"bounds": {HARMFUL: 4.9}}, "harmful text"),
        ({"image": 7.4}, {"image": 7.6}, "shift of image"),
        ({"image": -7.4}, {"image": -7.6}, "shift of image"),
        ({"bounds": {LONGEST: 799.0}}, {"bounds": {LONGEST: 801.0}}, "strength"),
        ({"layer_failures": []}, {"layer_failures": ["the KL is high"]}, "layer"),
    ],
)
def test_limits(kept, broken, name):
    assert unlike(**kept) == set()
    assert unlike(**broken) == {name}


def test_a_turned_direction():
    unit = artefact().tensors["direction"]
    other = torch.randn(len(unit), generator=torch.Generator().manual_seed(1))
    other -= (other @ unit) * unit
    other /= other.norm()
    assert unlike(turned=0.48 * other) == set()
    assert unlike(turned=0.49 * other) == {"direction"}


def test_a_fresh_calibration_is_made_with_the_same_options():
    mars, rules = method_named("mars"), RULES | {"options": {"gain": 3.0}}
    assert mars.options_like(rules, same_layer=True) == mars.Options(layer=2, gain=3.0)
    assert mars.options_like(rules, same_layer=False) == mars.Options(gain=3.0)
    with pytest.raises(ExportError, match=r"steering\.options of the checkpoint: gian: "):
        mars.options_like(RULES | {"options": {"gian": 3.0}}, same_layer=True)


@pytest.mark.parametrize("name", ["gain", "radius"])
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
def test_a_strength_that_is_none_is_refused(name, value):
    with pytest.raises(ValidationError):
        method_named("mars").Options(**{name: value})


def test_constant_addition_compares_the_direction_whatever_its_length():
    push = torch.tensor([3.0, 4.0])
    for fresh, fits in ((push * 2, True), (torch.tensor([4.0, -3.0]), False)):
        made = type("Fresh", (), {"tensors": {"push": fresh}})
        (difference,) = method_named("addition").compare(RULES, {"push": push}, made)
        assert (difference.name, difference.fits) == ("direction", fits)


def test_a_method_without_a_checkpoint_has_nothing_to_compare():
    with pytest.raises(ExportError, match="makes no checkpoint"):
        method_named("safety-prompt").compare({}, {}, None)
