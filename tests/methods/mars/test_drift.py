"""Every comparison with a fresh calibration is able to fail, each at its limit."""

import pytest
import torch
from pydantic import ValidationError

from mars_export.common.errors import ExportError
from mars_export.methods import method_named
from mars_export.methods.mars.record import Margin
from support import tiny

RULES = {"layers": [2], "positions": "turn_end", "modalities": ["text", "image", "video"]}
ORIGIN, HARMFUL, CAP, SLOPE, LONGEST = range(5)
MARGINS = {"text": 0.5, "image": 0.25, "video": 0.125}
"""Medians over R, which is 40: limits of what moves down. R/12 is the limit of what moves up."""


def artefact(**changes):
    made = tiny.artefact("qwen3_vl")
    bounds = torch.tensor([-10.0, 20.0, 600.0, 800.0, 400.0]).repeat(3, 1)
    for index, value in changes.pop("bounds", {}).items():
        bounds[0, index] = value
    bounds[1, ORIGIN] += changes.pop("opens", 0.0)
    shift = torch.tensor([[0.0, 0.0], [3.0, 4.0], [-5.0, -5.0]])
    shift[1, 1] += changes.pop("image", 0.0)
    turn = torch.tensor([[0.0, 1.0]] * 3)
    turn[0, 1] += changes.pop("later", 0.0)
    knots = torch.tensor([[0.0, 0.0], [2.0, 4.0], [2.0, 2.0]])
    direction = made.tensors["direction"] + changes.pop("turned", 0.0)
    tensors = {"direction": direction, "knots": knots, "shift": shift, "turn": turn,
               "bounds": bounds}  # fmt: skip
    margins = [Margin(modality=m, n=9, open=9, low=0, median=x) for m, x in MARGINS.items()]
    record = made.record.record.model_copy(update={"margins": margins, **changes})
    whole = made.record.model_copy(update={"record": record})
    return type(made)(whole, {**made.tensors, **tensors})


def unlike(**changes):
    """Names of what does not fit, after checking that all is compared."""
    stored, fresh = artefact(), artefact(**changes)
    differences = method_named("mars").compare(RULES, stored.tensors, fresh)
    assert [d.name for d in differences] == [
        "direction", "layer", "harmful text", "gate origin of text", "shift of text",
        "gate origin of image", "shift of image", "gate origin of video", "shift of video",
        "strength",
    ]  # fmt: skip
    return {d.name for d in differences if not d.fits}


def test_nothing_moved():
    assert unlike() == set()


@pytest.mark.parametrize(
    ("kept", "broken", "name"),
    [
        ({"bounds": {ORIGIN: -10 + 4.9}}, {"bounds": {ORIGIN: -10 + 5.1}}, "gate origin of text"),
        ({"bounds": {ORIGIN: -10 - 19.9}}, {"bounds": {ORIGIN: -10 - 20.1}}, "gate origin of text"),
        ({"opens": 4.9}, {"opens": 5.1}, "gate origin of image"),
        ({"opens": -9.9}, {"opens": -10.1}, "gate origin of image"),
        ({"bounds": {HARMFUL: 5.1}}, {"bounds": {HARMFUL: 4.9}}, "harmful text"),
        ({"image": 4.9}, {"image": 5.1}, "shift of image"),
        ({"image": -9.9}, {"image": -10.1}, "shift of image"),
        ({"later": 4.9}, {"later": 5.1}, "shift of text"),
        ({"later": -19.9}, {"later": -20.1}, "shift of text"),
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
