"""Baselines that measure a request before they act: AdaSteer, ShiftDC, ECSO, a guard in front."""

from types import SimpleNamespace

import pytest
import torch
from baselines.planted import PlantedLoaded, base_states, batch, pictured, study, texts

from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.baselines import BASELINES, adasteer, ecso, guard, shiftdc
from mars_export.evaluation.baselines.captions import captions, described
from mars_export.inputs.requests import Media, Request, Turn
from mars_export.methods.addition.record import AdditionOptions
from support.planted import BAD, calibrated

HALF_ANSWERED = dict.fromkeys(BAD[:8], 0.25)


@pytest.fixture(scope="module")
def record():
    return calibrated("addition", AdditionOptions(layer=4, positions="prompt")).record


def tokens(loaded):
    """Ids of the first token of a refusal and of an answer."""
    return loaded.model.refuses, loaded.model.sure


def test_a_fitted_line_separates_the_labels():
    line = adasteer.fitted_line(torch.tensor([0.9, 1.0, 1.1]), torch.tensor([-0.1, 0.0, 0.1]))
    assert bool((line(torch.tensor([1.0, 1.2])) > 0.9).all())
    assert bool((line(torch.tensor([0.0, -0.4])) < 0.1).all())
    assert float(line(torch.tensor([9.0]))) == 1
    flat = adasteer.fitted_line(torch.ones(2), torch.ones(2))
    assert float(flat(torch.tensor([5.0]))) == 0.5


def test_adasteer_pushes_by_the_position(record):
    loaded = PlantedLoaded()
    fit = adasteer.Fit.fit(study(record, loaded))
    assert len(fit.axes) == 1
    assert "no harmfulness direction, as the model answers 0 of the harmful" in fit.detail
    asked = batch(loaded, texts())
    before = base_states(loaded, asked)
    answers = fit.answer(loaded, asked)
    first = fit.layers[0]
    moved = loaded.seen[first] - before[first]
    length = fit.gain / len(fit.layers) * float(fit.axes[0].text.separation[first])
    gates = torch.tensor([d.gate for d in answers.decisions])
    assert bool((gates[:2] > 0.8).all())
    assert bool((gates[2:] < 0.2).all())
    assert torch.allclose(moved.norm(dim=-1), (gates * length)[:, None], atol=1e-4)
    assert answers.texts == ["Sorry", "Sorry", "sure", "sure"]
    assert answers.cost.steps == 1  # of the pass before, as the planted answer costs none


def test_adasteer_has_a_second_direction_where_harmful_prompts_are_answered(record):
    loaded = PlantedLoaded(odd=HALF_ANSWERED)
    fit = adasteer.Fit.fit(study(record, loaded))
    assert [axis.name for axis in fit.axes] == ["rejection", "harmfulness"]
    harmful, harmless = (study(record, loaded).states(x, "check") for x in ("harmful", "harmless"))
    assert float(fit.axes[0].strengths(harmful).mean()) > 0.5
    assert float(fit.axes[0].strengths(harmless).mean()) < 0.2
    assert float(fit.axes[1].strengths(harmful).mean()) > -0.3
    assert float(fit.axes[1].strengths(harmless).mean()) < -0.7
    assert fit.answered == len(HALF_ANSWERED)
    assert "no harmfulness" not in fit.detail


def test_shiftdc_leaves_no_shift_along_the_axis(record):
    loaded = PlantedLoaded(kept=0.1, noise=0.1)
    fit = shiftdc.Fit.fit(study(record, loaded))
    requests = pictured(texts())
    asked = batch(loaded, requests)
    before = base_states(loaded, asked)
    written, _ = captions(loaded, requests, shiftdc.caption_prompt)
    plain = batch(loaded, [described(r, t) for r, t in zip(requests, written, strict=True)])
    goals = base_states(loaded, plain)
    answers = fit.answer(loaded, asked)
    for layer, (old, new, goal) in enumerate(zip(before, loaded.seen, goals, strict=True)):
        r = fit.axes[layer]
        shift = (new[:, -1] - goal[:, -1]) @ r
        if layer < fit.first:
            assert torch.equal(old, new)
            continue
        assert torch.allclose(shift, torch.zeros(4), atol=1e-4)
        assert torch.equal(old[:, :-1], new[:, :-1])
    assert answers.texts == ["Sorry", "Sorry", "sure", "sure"]
    assert loaded.answer(asked.inputs, 1, steered=False).texts[:2] == ["sure", "sure"]


@pytest.mark.parametrize("name", ["shiftdc", "ecso"])
def test_text_is_answered_as_it_is(record, name):
    loaded = PlantedLoaded()
    fit = shiftdc.Fit.fit(study(record, loaded)) if name == "shiftdc" else ecso.Fit([1], [2])
    answers = fit.answer(loaded, batch(loaded, texts()))
    assert answers.texts == ["Sorry", "Sorry", "sure", "sure"]
    assert answers.decisions == [None] * 4


def test_ecso_answers_as_the_base_where_it_sees_no_harm():
    loaded = PlantedLoaded(kept=0.1, noise=0.1)
    refusal, answer = tokens(loaded)
    asked = batch(loaded, pictured(texts()))
    plain = loaded.answer(asked.inputs, 1, steered=False)
    answers = ecso.Fit(yes=[refusal], no=[answer]).answer(loaded, asked)
    assert answers.texts == plain.texts == ["sure"] * 4
    assert torch.equal(answers.logits, plain.logits)
    assert [d.active for d in answers.decisions] == [False] * 4


def test_ecso_answers_what_is_flagged_from_a_description():
    loaded = PlantedLoaded(kept=0.1, noise=0.1)
    refusal, answer = tokens(loaded)
    fit = ecso.Fit(yes=[answer], no=[refusal])
    answers = fit.answer(loaded, batch(loaded, pictured(texts())))
    assert answers.texts == ["Sorry", "Sorry", "sure", "sure"]
    assert answers.logits.argmax(-1).tolist() == [refusal, refusal, answer, answer]
    assert [d.active for d in answers.decisions] == [True] * 4


def test_ecso_needs_a_tokenizer_that_tells_yes_from_no(record):
    with pytest.raises(ExportError, match="no tokens that tell Yes from No"):
        ecso.Fit.fit(study(record, PlantedLoaded()))


@pytest.mark.parametrize("name", ["shiftdc", "ecso"])
def test_a_checkpoint_without_pictures_is_left_out(record, name):
    source = record.source.model_copy(update={"modalities": ("text",)})
    textual = record.model_copy(update={"source": source})
    with pytest.raises(UnsteerableError, match="takes text alone, which is left as it is"):
        BASELINES[name].fit_class.fit(study(textual, PlantedLoaded()))


def test_captions_stand_where_the_pictures_stood():
    picture, video = Media("image", None), Media("video", ())
    request = Request("And this?", (picture, video), history=(Turn("What?", "A cat.", (picture,)),))
    plain = described(request, ["a cat", "a dog", "a bird"])
    assert plain.turns[0].prompt == "[Picture: a cat]\nWhat?"
    assert plain.prompt == "[Picture: a dog]\n[Video: a bird]\nAnd this?"
    assert plain.conversation_media == ()


def test_a_guard_refuses_for_the_model_and_lets_the_rest_pass():
    loaded = PlantedLoaded()
    asked = batch(loaded, texts())
    plain = loaded.answer(asked.inputs, 1, steered=False)
    fit = guard.Fit(SimpleNamespace(name="g@1", is_safe=lambda prompt: "bad191" not in prompt))
    answers = fit.answer(loaded, asked)
    assert answers.texts == ["Sorry", "I'm sorry, but I can't help with that.", "sure", "sure"]
    assert bool(answers.logits[1].isnan().all())
    assert torch.equal(answers.logits[[0, 2, 3]], plain.logits[[0, 2, 3]])
    assert [d.active for d in answers.decisions] == [False, True, False, False]


def test_a_guard_that_is_not_at_hand_is_one_line(tmp_path, record):
    from evaluation.fakes import save_manifest

    save_manifest(tmp_path / "steered")
    *_, arm = open_arms(tmp_path / "steered", ["none", "guard:nobody/nothing"])
    with pytest.raises(ExportError, match="--arm guard: nobody/nothing cannot be fetched"):
        arm.baseline.fit_class.require(record)
    assert arm.name == "guard"
