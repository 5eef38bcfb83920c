"""The whole calibration on a model whose answer is known."""

import re
from dataclasses import replace

import pytest
import torch

from mars_export.common.errors import ExportError
from mars_export.methods.calibrate import calibrate
from mars_export.methods.mars.method import probe
from mars_export.methods.mars.record import MarsOptions
from mars_export.methods.mars.rule import Rule
from mars_export.methods.mars.strength import Trial
from support import planted
from support.planted import MEASUREMENT, PROCESSOR


def run(model=None, prompts=None, progress=None, template=None, **options):
    return calibrate(
        model or planted.PlantedModel(),
        planted.processor(template) if template else PROCESSOR,
        prompts=prompts or planted.prompt_sets(),
        modalities=("text", "image"),
        options=MarsOptions(**options),
        measurement=MEASUREMENT,
        progress=progress,
    )


@pytest.fixture(scope="module")
def found():
    return run()


def test_direction_and_shift_are_the_planted_ones(found):
    assert float(found.tensors["direction"][planted.HARM]) > 0.99
    assert float(found.tensors["direction"].norm()) == pytest.approx(1, abs=1e-6)
    record, vectors = found.record.record, found.tensors
    assert record.separation == pytest.approx(4, abs=0.2)
    assert record.shift["text"].at() == 0
    assert record.shift["image"].at() == pytest.approx(1, abs=0.05)
    assert record.shift["image"].tokens == [0, 4, 8, 16]
    assert record.shift["image"].plain == 4
    gap = vectors["centroid_harmful"] - vectors["centroid_harmless"]
    torch.testing.assert_close(gap / gap.norm(), vectors["direction"], atol=1e-5, rtol=0)


@pytest.mark.parametrize(("source", "least"), [("pca", 0.95), ("probe", 0.8), ("self-guard", 0.9)])
def test_other_sources_find_the_planted_direction_too(source, least):
    artefact = run(planted.PlantedModel(guard=20.0), direction=source)
    record, direction = artefact.record.record, artefact.tensors["direction"]
    assert float(direction[planted.HARM]) > least
    gap = artefact.tensors["centroid_harmful"] - artefact.tensors["centroid_harmless"]
    assert record.separation == pytest.approx(float(gap @ direction), rel=1e-5)
    assert record.separation <= float(gap.norm()) * (1 + 1e-6)
    assert record.direction == source
    assert artefact.record.rules["options"] == {"direction": source}


def test_a_template_without_system_prompt_has_no_direction_of_a_safety_prompt():
    deaf = planted.TEMPLATE.replace("in messages %}", "in messages if m['role'] != 'system' %}")
    with pytest.raises(ExportError, match=r"--direction self-guard .*leaves it out"):
        run(template=deaf, direction="self-guard")
    with pytest.raises(ExportError, match=r"separability|direction"):
        run(direction="self-guard")  # the safety prompt changes nothing in this model


def test_the_layer_is_the_best_reading_one_that_acts():
    model = planted.PlantedModel()
    record = run(model).record.record
    scores = {s.layer: s for s in record.scores if s.excluded is None}
    assert sorted(scores) == [2, 3, 4, 5, 6, 7]
    best_read = max(scores.values(), key=lambda s: s.combined)
    assert best_read.layer >= 6
    assert best_read.induced < 0  # the veto, on text alone
    assert best_read.lift is None
    chosen = scores[record.layer]
    assert chosen.layer < 6
    assert chosen.induced > 0
    assert chosen.kl <= 0.1
    rest = [s.combined for s in scores.values() if s.layer < 6]
    assert chosen.combined >= max(rest) - 0.05


def test_the_layer_can_be_chosen_by_its_lift_beside_pictures():
    record = run(layer_rule="lift").record.record
    tried = [s for s in record.scores if s.lift is not None]
    assert record.layer_rule == "lift"
    assert [s.lift for s in tried if s.layer >= 6] == pytest.approx([0, 0], abs=1e-6)
    best = max((s for s in tried if s.induced > 0), key=lambda s: s.lift)
    assert record.layer == best.layer < 6
    assert best.lift > 5


def test_harmless_decision_requests_are_left_alone(found):
    rule = Rule(planted.WIDTH, {"modalities": ["text", "image"], **found.record.rules})
    rule.load_state_dict({name: found.tensors[name] for name in Rule.TENSORS})
    for line in found.record.record.projections:
        row = torch.tensor(["text", "image"].index(line.modality))
        pushes = rule.strength(torch.tensor(line.values), row)
        if line.label == "harmless":
            assert float((pushes > 0).double().mean()) <= 0.05, line.group
    assert {str(line.group) for line in found.record.record.projections} == {
        "harmful text",
        "harmless text",
        "harmful text + neutral image",
        "harmless text + neutral image",
    }


def test_probes_show_both_sides_of_the_gate(found):
    by_modality = {
        m: [p for p in found.record.probes if p.modality == m] for m in ("text", "image")
    }
    assert not [p for p in found.record.probes if p.modality == "video"]
    for modality, probes in by_modality.items():
        assert [p.expected.active for p in probes[:4]] == [True, True, True, False], modality
        calm = probes[3:]
        assert all(p.expected.gate == 0 for p in calm)
        assert [len(p.history) for p in calm if p.history] == [1]
        shown = {len(p.stimuli) for p in calm}
        assert shown == ({0} if modality == "text" else {1, 2})
    assert all(0 < p.gate_limit <= 0.25 for p in found.record.probes)


def test_the_calm_probe_is_the_harmless_request_nearest_below_the_gate(found):
    record = found.record.record
    for line in record.projections:
        if line.label == "harmless" and line.modality == "text":
            origin = record.origin[line.modality]
            nearest = max(x for x in line.values if x <= origin)
            calm = [p for p in found.record.probes if p.modality == line.modality][3]
            texts = planted.prompt_sets().harmless.decision
            assert line.values[texts.index(calm.prompt)] == nearest


def test_a_modality_that_is_never_pushed_is_refused(monkeypatch):
    def never_beside_pictures(record, rule, modality, prompt, stimuli, p, history):
        p = -1e6 if modality == "image" else p
        return probe(record, rule, modality, prompt, stimuli, p, history)

    monkeypatch.setattr("mars_export.methods.mars.method.probe", never_beside_pictures)
    with pytest.raises(ExportError, match=r"Of harmful text \+ neutral image no decision prompt"):
        run()


def test_provenance(found):
    record = found.record.source
    assert record.prompts["harmful"].direction == 30
    assert record.prompts["harmful"].dropped == 0
    assert record.stimuli["image"].count > 48
    assert (record.layers, record.hidden_size, record.dtype) == (10, planted.WIDTH, "float32")
    names = PROCESSOR.tokenizer.convert_ids_to_tokens
    assert [names([*h.prefix, *h.ends]) for h in record.headers] == [planted.HEADER]
    assert names(found.record.record.refusal_tokens) == ["Sorry"]


def test_the_same_seed_gives_the_same_record(found):
    again = run()
    assert again.record.record == found.record.record
    assert again.record.probes == found.record.probes
    assert again.tensors.keys() == found.tensors.keys()
    assert all(torch.equal(again.tensors[name], found.tensors[name]) for name in found.tensors)


def test_progress_ends_at_the_total():
    calls = []
    run(progress=lambda done, total: calls.append((done, total)))
    assert calls[0][0] == 0
    assert calls[0][1] > 0
    assert calls[-1][0] == calls[-1][1]
    assert all(done <= total for done, total in calls)
    assert [done for done, _ in calls] == sorted(done for done, _ in calls)


def test_prompts_that_the_model_handles_the_other_way_are_dropped():
    sets = planted.prompt_sets()
    mixed = (*sets.harmful.direction[:-2], "show me the good199", "please explain good198")
    sets = replace(sets, harmful=replace(sets.harmful, direction=mixed))
    source = run(prompts=sets).record.source.prompts["harmful"]
    assert (source.direction, source.dropped) == (28, 2)


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ({"threshold": 9.0}, r"refuses only 0 of the 30 direction prompts of bad"),
        ({"threshold": -9.0}, r"answers only 0 of the 30 direction prompts of good"),
        ({"commit": 0}, r"induced refusal log-odds are -\d+\.\d+, not above 0"),
        ({"layers": 1, "commit": 0}, r"too few decoder layers"),
    ],
)
def test_a_model_without_a_usable_direction_is_refused(model, message):
    with pytest.raises(ExportError, match=message):
        run(planted.PlantedModel(**model))


def test_a_direction_that_does_not_separate_is_refused(monkeypatch):
    monkeypatch.setattr("mars_export.methods.mars.layers.LEAST_SEPARABILITY", 99.0)
    with pytest.raises(ExportError, match=r"separability d' = \d\.\d+ is below 99"):
        run()


def test_a_narrow_gate_is_refused(monkeypatch):
    monkeypatch.setattr("mars_export.methods.mars.layers.LEAST_GATE_WIDTH", 1.5)
    with pytest.raises(ExportError, match=r"gate width \(p_u - o\) / R = 0\.\d+ is below 1\.5"):
        run()


def test_a_gate_that_disturbs_harmless_inputs_is_refused(monkeypatch):
    monkeypatch.setattr("mars_export.methods.mars.strength.KL_LIMIT", -1.0)
    with pytest.raises(ExportError, match=r"KL on harmless inputs is 0\.\d+ nats, above -1"):
        run()


def test_a_named_layer_is_taken_and_its_checks_recorded():
    artefact = run(layer=8).record
    assert artefact.options == {
        "layer": 8, "direction": "difference-of-means", "layer_rule": "scores", "finalists": 5,
        "reserve": 0.125,
    }  # fmt: skip
    record = artefact.record
    assert record.layer == 8
    assert record.scores[8].induced < 0
    assert record.layer_forced
    assert len(record.layer_failures) == 1
    assert re.match(r"the induced refusal log-odds are -\d", record.layer_failures[0])
    assert any(said.startswith("Layer 8, set by hand, fails") for said in record.missed)
    with pytest.raises(ExportError, match="Layer 10 does not exist; the model has layers 0 to 9"):
        run(layer=10)


def test_the_record_says_whether_the_goal_was_reached(found, monkeypatch):
    before = found.record.record
    assert before.reached >= before.goal
    assert (before.layer_forced, before.layer_failures) == (False, [])
    monkeypatch.setattr("mars_export.methods.mars.strength._TOLERANCE", -99.0)
    missed = run(layer=before.layer).record.record
    assert (missed.gain, missed.radius) == (2.0, 1.0)
    assert missed.goal == pytest.approx(before.goal + 99.5, abs=1e-4)
    assert missed.reached < missed.goal


def test_text_alone_has_no_goal():
    record = calibrate(
        planted.PlantedModel(), PROCESSOR, prompts=planted.prompt_sets(), modalities=("text",),
        options=MarsOptions(layer=4), measurement=MEASUREMENT,
    ).record.record  # fmt: skip
    assert (record.reached, record.goal) == (None, None)


@pytest.mark.parametrize(
    ("induced", "kl", "lift", "failed"),
    [
        (1.0, 0.1, 0.5, []),
        (1.0, 0.1, 0.0, ["lift"]),
        (1.0, 0.1, -2.0, ["lift"]),
        (1.0, 0.1, None, []),
        (0.0, 0.2, 0.5, ["induced", "KL"]),
        (float("nan"), float("nan"), float("nan"), ["induced", "KL", "lift"]),
    ],
)
def test_every_check_of_a_trial_can_fail(induced, kl, lift, failed):
    failures = Trial(3, induced, kl, lift).failures
    assert [said.split()[1] for said in failures] == failed


def test_named_strengths_are_kept():
    fixed = run(gain=1.0, radius=0.5, layer=3).record.record
    assert (fixed.gain, fixed.radius) == (1.0, 0.5)


def test_a_layer_that_the_model_has_not_is_refused_before_anything_is_run(monkeypatch):
    monkeypatch.setattr("mars_export.methods.mars.method.measure", None)
    with pytest.raises(ExportError, match="Layer 10 does not exist"):
        run(layer=10)


def test_a_shift_of_later_turns_is_taken_off():
    plain, moved = (
        run(planted.PlantedModel(later=later), layer=3).record.record for later in (0.0, 0.6)
    )
    for modality in ("text", "image"):
        pair = zip(moved.shift[modality].turns, plain.shift[modality].turns, strict=True)
        assert [a - b for a, b in pair] == pytest.approx([0, 0.6, 1.2], abs=0.05)
    later = [c for c in moved.conditions if c.name in ("second turn", "third turn")]
    assert len(later) == 4
    for condition in later:
        assert condition.treatment == "shift"
        assert abs(condition.rest) < 0.05 < 0.1 < condition.moved
    assert all(c.open <= 1 for c in moved.checks if c.name.endswith("turn"))


def test_one_outlier_moves_no_gate():
    sets = planted.prompt_sets(400)
    word = sets.harmless.decision[7].removesuffix(" please").split()[-1]
    usual, found = (
        run(planted.PlantedModel(odd=odd), prompts=sets, layer=3).record.record
        for odd in (None, {word: 0.45})
    )
    for modality in ("text", "image"):
        assert found.origin[modality] == pytest.approx(usual.origin[modality], abs=0.2)


def test_the_promise_is_made_from_59_prompts_on(found):
    few = found.record.record
    assert few.confidence["text"] < 0.95
    assert any("needs 236" in said for said in few.missed)
    enough = run(prompts=planted.prompt_sets(320)).record.record
    assert enough.confidence == {"text": 0.95, "image": 0.95}
    assert not any("confidence" in said for said in enough.missed)


def test_checks_are_made_on_prompts_that_decided_nothing(found):
    record = found.record.record
    every = {(c.modality, c.name): c for c in record.checks}
    names = {name for modality, name in every if modality == "image"}
    assert names >= {"all", "plain", "two stimuli", "four stimuli", "second turn", "follow-up"}
    assert every["text", "plain"].n == 15
    assert [m.modality for m in record.margins] == ["text", "image"]
    assert all(0 < m.low <= m.median for m in record.margins)


@pytest.mark.parametrize(
    ("label", "said"),
    [
        ("harmful", "nothing harmful was checked: the model refuses none"),
        ("harmless", "nothing harmless was checked: the model answers none"),
    ],
)
def test_what_could_not_be_checked_is_missed(found, label, said):
    sets = planted.prompt_sets()
    wrong = {"harmful": sets.harmless, "harmless": sets.harmful}[label]
    changed = replace(getattr(sets, label), check=wrong.check)
    record = run(prompts=replace(sets, **{label: changed}), layer=3).record.record
    assert [line.startswith(("As text, ", "Beside images, ")) for line in record.missed
            if said in line] == [True, True]  # fmt: skip
    assert not [line for line in found.record.record.missed if "was checked" in line]


def refusing(condition):
    """The planted template, where a picture raises under a condition."""
    where = "{% set place = loop.index0 %}{% for c in m['content'] %}"
    error = "{% if c['type'] == 'image' and CONDITION %}{{ raise_exception('no') }}{% endif %}"
    loop = "{% for c in m['content'] %}"
    return planted.TEMPLATE.replace(loop, where + error.replace("CONDITION", condition))


def test_a_template_that_shows_pictures_in_the_first_turn_alone(found):
    record = run(template=refusing("place > 0"), layer=3).record.record
    names = {c.name for c in record.conditions if c.modality == "image"}
    assert names == {"plain", "two stimuli", "four stimuli", "follow-up"}
    (follow_up,) = (c for c in record.conditions if (c.modality, c.name) == ("image", "follow-up"))
    assert abs(follow_up.rest) < 0.05
    assert record.shift["image"].turns == [0]


def test_a_processor_that_takes_no_pictures_is_refused():
    with pytest.raises(ExportError, match=r"one neutral image cannot be made \(.*no; .*\); corr"):
        run(template=refusing("true"))


def test_a_model_that_refuses_all_beside_pictures_is_refused():
    with pytest.raises(ExportError, match="refuses all 15 harmless prompts beside a neutral image"):
        run(planted.PlantedModel(shift=5.0), layer=3)
