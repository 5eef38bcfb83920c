"""Constant addition on a model whose direction is known."""

import pytest
import torch
from pydantic import ValidationError

from mars_export.common.errors import ExportError
from mars_export.methods import method_named
from mars_export.methods.addition.method import _edit
from mars_export.methods.addition.record import AdditionOptions
from mars_export.methods.addition.rule import Rule
from support import planted


def run(**options):
    return planted.calibrated("addition", AdditionOptions(**options))


@pytest.fixture(scope="module")
def artefact():
    return run()


def test_the_push_is_the_planted_direction_times_r(artefact):
    push = artefact.tensors["push"]
    record = artefact.record.record
    assert float(push.norm()) == pytest.approx(record.separation, rel=1e-6)
    assert float(push[planted.HARM] / push.norm()) > 0.99
    assert record.separation == pytest.approx(4, abs=0.2)


def test_the_layer_is_one_that_acts(artefact):
    record = artefact.record.record
    assert record.layer < 6  # the planted model decides there
    induced = [trial.induced for trial in record.trials]
    assert len(induced) == 5
    assert induced == sorted(induced, reverse=True)
    assert induced[0] > 0


def test_harmless_requests_are_pushed_too(artefact):
    for effect in artefact.record.record.effects:
        assert effect.after > effect.before, effect.group
    after = {str(e.group): e.after for e in artefact.record.record.effects}
    assert after["harmless text"] > 0


def test_rules_name_layer_and_positions(artefact):
    assert artefact.record.rules == {"layers": [artefact.record.record.layer], "positions": "all"}
    chosen = run(layer=3, positions="prompt", coefficient=0.5).record
    assert chosen.rules == {
        "layers": [3],
        "positions": "prompt",
        "options": {"positions": "prompt", "coefficient": 0.5},
    }
    assert (chosen.record.layer_forced, len(chosen.record.trials)) == (True, 1)
    assert chosen.probes[0].expected.strength == pytest.approx(chosen.record.separation / 2)


def test_problems_are_clear():
    with pytest.raises(ExportError, match="Layer 10 does not exist; the model has layers 0 to 9"):
        run(layer=10)
    with pytest.raises(ExportError, match=r"the induced refusal log-odds are -\d\.\d+, not above"):
        run(coefficient=0.05)


def test_the_rule_adds_one_vector_and_names_its_length():
    rule = Rule(3, {})
    rule.load_state_dict({"push": torch.tensor([3.0, 0.0, 4.0])})
    h = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    out, decision = rule(h, torch.zeros(2, 5, 3, dtype=torch.long))
    assert torch.equal(out, h + torch.tensor([3.0, 0.0, 4.0]))
    assert decision["strength"].shape == (2, 5)
    assert (decision["strength"] == 5).all()


def test_calibration_leaves_the_shipped_tensors_where_they_are():
    rule = Rule(3, {})
    after = _edit(rule, 0, "all").change(
        torch.empty(2, 3, device="meta"), torch.empty(2, 3, dtype=torch.long, device="meta")
    )
    assert (after.device.type, rule.push.device.type) == ("meta", "cpu")


def test_a_push_away_from_refusal_still_fits_the_weights_it_was_measured_on():
    addition = method_named("addition")
    stored = run(coefficient=-1.0)
    options = addition.options_like(stored.record.rules, same_layer=True)
    again = planted.calibrated("addition", options)
    (difference,) = addition.compare(stored.record.rules, stored.tensors, again)
    assert difference.fits
    assert difference.value == pytest.approx(1)


@pytest.mark.parametrize("coefficient", [0, float("nan"), float("inf"), -float("inf")])
def test_a_coefficient_that_is_no_push_is_refused(coefficient):
    with pytest.raises(ValidationError):
        AdditionOptions(coefficient=coefficient)


def test_a_layer_that_the_model_has_not_is_refused_before_anything_is_run(monkeypatch):
    monkeypatch.setattr("mars_export.methods.addition.method.measure", None)
    with pytest.raises(ExportError, match="Layer 10 does not exist"):
        run(layer=10)


@pytest.mark.parametrize("length", [1.0, -2.0, 0.0, float("nan"), float("inf")])
def test_a_push_without_a_length_is_a_problem(length):
    rule = Rule(3, {})
    rule.load_state_dict({"push": torch.tensor([0.0, length, 0.0])})
    sound = length in (1.0, -2.0)
    assert (rule.problem() is None) == sound
    assert sound or rule.problem() == f"the push has length {length:g}"
