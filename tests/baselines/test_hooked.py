"""Baselines that add a vector: where, how far, and when."""

import pytest
import torch
from baselines.planted import PlantedLoaded, base_states, batch, pictured, study, texts
from PIL import Image

from mars_export.common.errors import UnsteerableError
from mars_export.evaluation.baselines import BASELINES
from mars_export.evaluation.baselines.cast import best_condition
from mars_export.inputs.requests import Media, Request
from mars_export.methods import method_named
from mars_export.methods.addition.record import AdditionOptions
from mars_export.methods.mars.record import Strength, mars_record
from support import tiny
from support.heard import tone
from support.planted import calibrated

PROMPTED = ("addition", "random-direction", "cast")


@pytest.fixture(scope="module")
def record():
    return calibrated("addition", AdditionOptions(layer=4, positions="prompt")).record


@pytest.fixture
def loaded():
    return PlantedLoaded()


def fitted(name, record, loaded):
    return BASELINES[name].fit_class.fit(study(record, loaded))


def moved(loaded, fit, asked):
    """(B, T, d) what a baseline changed in the first layer that it changed, and which one."""
    before = base_states(loaded, asked)
    answers = fit.answer(loaded, asked)
    for layer, (old, new) in enumerate(zip(before, loaded.seen, strict=True)):
        if not torch.equal(old, new):
            return answers, layer, new - old
    return answers, None, torch.zeros_like(before[0])


def test_addition_pushes_every_position_by_the_difference_of_the_means(record, loaded):
    fit = fitted("addition", record, loaded)
    asked = batch(loaded, texts())
    answers, layer, change = moved(loaded, fit, asked)
    assert layer == fit.layer < 6  # where the model commits
    assert torch.allclose(change, fit.push.expand_as(change), atol=1e-5)
    assert answers.texts == ["Sorry"] * 4
    assert all(d.active and d.position == int(n) - 1 for d, n in zip(
        answers.decisions, asked.inputs["attention_mask"].sum(1), strict=True
    ))  # fmt: skip
    assert answers.decisions[0].strength == pytest.approx(float(fit.push.norm()), rel=1e-4)


@pytest.mark.parametrize("policy", ["turn_end", "prompt", "all"])
def test_a_random_direction_is_as_long_as_the_longest_push_where_the_steering_pushes(
    record, loaded, policy
):
    stated = record.model_copy(update={"rules": {**record.rules, "positions": policy}})
    fit = fitted("random-direction", stated, loaded)
    answers, layer, change = moved(loaded, fit, batch(loaded, texts()))
    assert layer == 4
    lengths = change.norm(dim=-1)
    if policy == "turn_end":
        assert bool((lengths[:, :-1] == 0).all())
        lengths = lengths[:, -1:]
    assert torch.allclose(lengths, torch.tensor(record.record.separation), rtol=1e-4)
    assert answers.pushes[0] > 0
    assert not torch.allclose(change[0, -1], change[1, -1])
    again = fitted("random-direction", stated, loaded)
    _, _, repeated = moved(loaded, again, batch(loaded, texts()))
    assert torch.equal(repeated, change)
    assert "length" in fit.detail
    assert "layer 4" in fit.detail


def test_what_a_request_shows_chooses_its_random_direction(record, loaded):
    fit = fitted("random-direction", record, loaded)
    pictures = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    shown = [(), (tone(1.0),), (tone(1.1),), *((Media("image", p),) for p in pictures)]
    shown.append((Media("video", tuple(pictures)),))
    pushes = torch.stack([fit.push(Request("show me", media), 4) for media in shown])
    assert len(pushes.unique(dim=0)) == len(shown)
    assert fit.push(Request("show me", (tone(1.0),)), 4).equal(pushes[1])


def test_a_method_without_a_bound_has_no_random_direction(record, loaded, monkeypatch):
    monkeypatch.setattr(type(record), "layers", [])
    with pytest.raises(UnsteerableError, match="constant addition pushes no decoder layer by a b"):
        fitted("random-direction", record, loaded)


def test_cast_changes_nothing_below_its_threshold(record, loaded):
    fit = fitted("cast", record, loaded)
    assert fit.condition.f1 == 1
    answers, layer, change = moved(loaded, fit, batch(loaded, texts()))
    assert layer == fit.behavior.layer >= fit.condition.layer
    assert torch.allclose(change[:2], fit.behavior.push.expand_as(change[:2]), atol=1e-5)
    assert not change[2:].any()
    assert answers.texts == ["Sorry", "Sorry", "sure", "sure"]
    assert [d.active for d in answers.decisions] == [True, True, False, False]
    assert [d.strength > 0 for d in answers.decisions] == [True, True, False, False]


def test_the_condition_with_the_best_f1_is_found_on_either_side():
    low, high = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.25])
    found = best_condition(3, high, low)
    assert (found.layer, found.above, found.f1) == (3, True, pytest.approx(6 / 7))
    assert 0.2 < found.threshold < 0.25
    turned = best_condition(3, low, high)
    assert not turned.above
    assert turned.f1 == pytest.approx(6 / 7)
    assert 0.3 < turned.threshold < 0.5
    same = best_condition(0, torch.ones(3), torch.ones(3))
    assert same.f1 == pytest.approx(2 / 3)


@pytest.mark.parametrize("name", PROMPTED)
def test_an_answer_is_the_same_alone_and_in_a_batch(record, loaded, name):
    fit = fitted(name, record, loaded)
    requests = pictured(texts())
    together = fit.answer(loaded, batch(loaded, requests))
    alone = [fit.answer(loaded, batch(loaded, [request])) for request in requests]
    assert together.texts == [answers.texts[0] for answers in alone]
    assert [d.active for d in together.decisions] == [a.decisions[0].active for a in alone]


def test_the_longest_push_of_mars_is_that_of_any_modality():
    record = tiny.calibration("gemma3")
    numbers = mars_record(record)
    assert method_named("mars").longest_push(record) == numbers.radius * numbers.separation
    longer = Strength(cap=1.0, gain=1.0, radius=2 * numbers.radius)
    tuned = numbers.model_copy(update={"strengths": {"image": longer}})
    record = record.model_copy(update={"record": tuned})
    assert method_named("mars").longest_push(record) == longer.radius * numbers.separation


@pytest.mark.parametrize("name", ["addition", "adasteer", "cast"])
def test_headers_are_found_where_the_method_keeps_none(record, loaded, name):
    source = record.source.model_copy(update={"headers": []})
    fit = fitted(name, record.model_copy(update={"source": source}), loaded)
    decisions = fit.answer(loaded, batch(loaded, texts())).decisions
    assert [d.active for d in decisions[:2]] == [True, True]


def test_shiftdc_finds_headers_where_the_method_keeps_none(record, loaded):
    source = record.source.model_copy(update={"headers": []})
    fit = fitted("shiftdc", record.model_copy(update={"source": source}), loaded)
    assert fit.headers == record.source.headers
