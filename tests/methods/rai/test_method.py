"""The calibration of RAI: prototypes, thresholds, and what it refuses."""

from types import SimpleNamespace

import pytest
import torch
from torch.nn.functional import normalize

from mars_export.calibration.visual_tokens import pushed
from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.common.plotting import png
from mars_export.evaluation.selfcheck import probe_request
from mars_export.families.loading import load_base
from mars_export.inputs.requests import Request, collate
from mars_export.methods import method_named
from mars_export.methods.calibrate import calibrate
from mars_export.methods.rai.method import _threshold
from mars_export.methods.rai.record import WORDS, rai_record
from mars_export.methods.rai.rule import VisualRule
from mars_export.methods.rai.scores import Shown, curve, kinds, threshold_of
from mars_export.pipeline.preflight import prepare
from mars_export.pipeline.settings import Settings
from support import methods, planted, tiny

RAI = method_named("rai")
SHARE = 0.05


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    return methods.export("rai", tmp_path_factory.mktemp("rai"), rai_share=SHARE)


@pytest.fixture(scope="module")
def organism():
    job = prepare(Settings(model=str(methods.BASE)))
    model, processor = load_base(methods.BASE, job.family, dtype="auto", device="cpu")
    return SimpleNamespace(model=model, processor=processor, family=job.family)


def shown(*values, number=0, kind="color"):
    """A stimulus whose visual tokens have these largest cosines."""
    cosines = torch.tensor([[value, -1.0] for value in values])
    return Shown(number, kind, cosines, torch.ones(len(values)))


def test_prototypes_are_the_means_of_the_words_own_embeddings(exported, organism):
    record = rai_record(exported.artefact.record)
    assert [(p.category, p.word) for p in record.prototypes] == [
        (category, word) for category, both in WORDS.items() for word in both
    ]
    table = organism.model.get_input_embeddings()
    for prototype, row in zip(
        record.prototypes, exported.artefact.tensors["prototypes"], strict=True
    ):
        ids = organism.processor.tokenizer(f" {prototype.word}", add_special_tokens=False)
        assert prototype.tokens == ids["input_ids"]
        mean = table(torch.tensor(prototype.tokens)).mean(0)
        torch.testing.assert_close(row, normalize(mean, dim=0))
        assert prototype.norm == pytest.approx(float(mean.norm()), rel=1e-5)


def test_the_stated_share_of_the_tokens_lies_above_the_threshold(exported):
    visual = rai_record(exported.artefact.record).visual["image"]
    cosines = exported.artefact.tensors["cosines_image"]
    assert len(cosines) == visual.tokens
    assert SHARE * visual.tokens >= 10
    above = (cosines > exported.artefact.tensors["thresholds"][1]).sum()
    assert int(above) == int(SHARE * visual.tokens)
    (chosen,) = [point for point in visual.curve if point.share == SHARE]
    assert chosen.threshold == pytest.approx(visual.threshold)
    touched = sum(kind.touched_tokens for kind in visual.kinds)
    assert chosen.tokens == pytest.approx(touched / sum(kind.tokens for kind in visual.kinds))
    thresholds = [point.threshold for point in visual.curve]
    assert thresholds == sorted(thresholds, reverse=True)


def test_no_header_is_kept_and_no_prompt_was_measured(exported):
    source = exported.artefact.record.source
    assert source.headers == source.turn_starts == []
    assert {p.direction + p.decision + p.check for p in source.prompts.values()} == {0}
    assert exported.artefact.record.unprobed == []


def test_what_calibration_pushes_is_what_the_checkpoint_pushes(exported, organism):
    artefact, loaded = exported.artefact, exported.load()
    rule = VisualRule(
        artefact.record.source.hidden_size,
        {**artefact.record.rules, "modalities": ["text", "image"]},
    )
    rule.load_state_dict({name: artefact.tensors[name] for name in rule.TENSORS})
    probe = artefact.record.probes[0]
    inputs = loaded.inputs([probe_request(artefact.record.source, probe)])
    with torch.no_grad(), pushed(organism.model, rule, ("text", "image")):
        logits = organism.model(**inputs).logits
    with torch.no_grad():
        base = organism.model(**inputs).logits
        torch.testing.assert_close(loaded.model(**inputs).logits, logits, rtol=1e-5, atol=1e-5)
    assert not logits.equal(base)


def test_thresholds_lie_between_two_values():
    tokens = [shown(0.1, 0.2), shown(0.3, 0.4), shown(0.5, 0.6)]
    assert threshold_of(tokens, 0.2) == pytest.approx(0.55)
    assert threshold_of(tokens, 0.5) == pytest.approx(0.35)
    assert threshold_of(tokens, 0.1) is None
    alike = [shown(0.1, 0.5, 0.5, 0.5, 0.7)]
    assert threshold_of(alike, 0.5) == pytest.approx(0.6)
    assert threshold_of([shown(0.5, 0.5, 0.5)], 0.5) is None


def test_the_curve_counts_stimuli_that_did_not_choose_it():
    tokens = [shown(*(i / 10 for i in range(10)))]
    held_out = [shown(0.1, 0.95), shown(0.2, 0.3), shown(0.88, 0.9)]
    few, many = curve(tokens, held_out, [0.5, 0.1])
    assert (few.share, few.tokens, few.stimuli) == (0.1, pytest.approx(3 / 6), pytest.approx(2 / 3))
    assert (many.share, many.tokens) == (0.5, pytest.approx(3 / 6))
    (color, noise) = kinds([*held_out, shown(0.99, kind="noise")], 0.89)
    assert (color.kind, color.stimuli, color.touched_stimuli) == ("color", 3, 2)
    assert (color.tokens, color.touched_tokens) == (6, 2)
    assert (noise.kind, noise.touched_tokens) == ("noise", 1)


def test_tokens_that_are_all_alike_cannot_be_told_apart():
    with pytest.raises(UnsteerableError, match=r"share of 0.001 of the 3 visual tokens .* image"):
        _threshold([shown(0.5, 0.5, 0.5)], "image", 0.001)
    with pytest.raises(UnsteerableError, match="puts no features of a neutral video"):
        _threshold([], "video", 0.001)


def test_a_model_of_text_alone_is_refused_in_one_line():
    with pytest.raises(ExportError, match="rai acts on pictures and clips, and llama takes text"):
        calibrate(
            SimpleNamespace(config=SimpleNamespace(model_type="llama")), None,
            prompts=planted.prompt_sets(), modalities=("text",), method="rai",
        )  # fmt: skip


def test_training_that_moves_words_or_pictures_is_told(exported):
    rules = {"modalities": ["text", "image"]}
    artefact = exported.artefact
    names = ("prototypes", "thresholds", "gain")
    tensors = {name: artefact.tensors[name].clone() for name in names}
    assert all(d.fits for d in RAI.compare(rules, tensors, artefact))
    tensors["thresholds"][1] = float(artefact.tensors["cosines_image"].max())
    tensors["prototypes"][0] = tensors["prototypes"][1]
    words, share = RAI.compare(rules, tensors, artefact)
    assert not words.fits
    assert not share.fits
    assert "0.00% lie above the stored threshold, chosen for 5.00%" in share.sentence


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"gain": torch.tensor(0.0)}, "the gain is 0"),
        ({"thresholds": torch.ones(2)}, "the lowest threshold of the cosine is 1"),
        ({"prototypes": torch.zeros(8, tiny.HIDDEN)}, "a prototype is not of length 1"),
        ({"prototypes": torch.full((8, tiny.HIDDEN), torch.nan)}, "a prototype is not of length 1"),
    ],
)
def test_the_rule_says_why_it_can_never_push(changes, problem):
    artefact = tiny.rai("gemma3")
    rule = VisualRule(tiny.HIDDEN, {"words": 8, "modalities": ["text", "image"]})
    rule.load_state_dict({**{n: artefact.tensors[n] for n in rule.TENSORS}, **changes})
    assert rule.problem() == problem


def test_the_curve_is_drawn(exported):
    (draw,) = RAI.card(exported.artefact.record).plots.values()
    assert png(draw).startswith(b"\x89PNG")


def test_text_is_never_pushed():
    artefact = tiny.rai("gemma3")
    rule = VisualRule(tiny.HIDDEN, {"words": 8, "modalities": ["text", "image"]})
    rule.load_state_dict({n: artefact.tensors[n] for n in rule.TENSORS})
    h = artefact.tensors["prototypes"]
    context = torch.zeros(len(h), 3, dtype=torch.long)
    same, decision = rule(h, context)
    assert same.equal(h)
    assert not decision["gate"].any()
    moved, decision = rule(h, context + 1)
    assert decision["gate"].allclose(torch.ones(len(h)))
    assert (moved != h).any(-1).all()


def test_processor_batches_keep_the_order_of_their_tokens(organism):
    """Two stimuli read at once give what each gives alone."""
    from mars_export.calibration.data import MeasurementOptions
    from mars_export.calibration.measurements import stimulus
    from mars_export.calibration.meter import Meter
    from mars_export.calibration.visual_tokens import read_visual_tokens

    requests = [
        Request("Describe it.", (stimulus("image", i, MeasurementOptions()),)) for i in range(3)
    ]
    both = [
        read_visual_tokens(organism.model, organism.processor, requests, torch.clone, size, Meter())
        for size in (1, 3)
    ]
    ids = collate(organism.processor, requests)["input_ids"]
    count = int((ids[0] == organism.model.config.image_token_id).sum())
    for one, other in zip(*both, strict=True):
        assert one.shape == (count, organism.model.config.get_text_config().hidden_size)
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
