"""Attacks that adapt: bounds of pixels, gates that fall, budgets, and a model left as it was."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mars_export.evaluation.adaptive.attacks import ATTACKS
from mars_export.evaluation.adaptive.batches import Batches, UnreachableError
from mars_export.evaluation.adaptive.extent import LEVELS, SHOWN
from mars_export.evaluation.adaptive.ladders import LADDERS, WORDINGS, Material
from mars_export.evaluation.adaptive.pictures import PixelPath, descend, fitted, size_of
from mars_export.evaluation.adaptive.record import Budget
from mars_export.evaluation.adaptive.surface import Surface, in_arm
from mars_export.evaluation.adaptive.target import Asked, Case, Target, cases_of, climb
from mars_export.evaluation.adaptive.words import Vocabulary, search, with_suffix
from mars_export.evaluation.generation import hosted_rules, load
from mars_export.evaluation.judges.base import Judgment
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.suite import Sample
from mars_export.inputs.requests import Media, Request, collate
from mars_export.inputs.safety_prompt import SAFETY_PROMPT_TEXT as TEXT
from mars_export.inputs.sounds import Sound
from mars_export.inputs.tuning import request_digest
from support import planted
from support.worded import export_worded

SIDE = 28
BUDGET = Budget(
    requests=2, steps=2, eps=(4,), gate_eps=(4,), suffix_words=2, suffix_steps=2, suffix_swaps=2,
    draws=3, max_new_tokens=2,
)  # fmt: skip


def picture(seed, side=SIDE):
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


def shown(seed, word="bad1"):
    return Request(f"show me the {word}", (Media("image", picture(seed)),))


@pytest.fixture(scope="module")
def loaded(tmp_path_factory):
    _, steered = export_worded(tmp_path_factory.mktemp("worded"), planted.processor())
    model = load(steered, ("text", "image"), "cpu", None)
    torch.manual_seed(0)  # a new projector passes on nothing of a picture
    torch.nn.init.normal_(model.model.model.multi_modal_projector.mm_input_projection_weight)
    return model


@pytest.fixture(scope="module")
def surface(loaded):
    tokens = loaded.processor.tokenizer.convert_tokens_to_ids(["sure", "please"])
    return Surface(loaded, tokens)


@pytest.fixture(scope="module")
def path(loaded):
    return PixelPath.of(loaded.processor, [shown(1), shown(2)])


@pytest.fixture
def steered(loaded):
    with in_arm(loaded, "on", 0):
        yield


def state(loaded):
    return {n: t.clone() for n, t in loaded.model.state_dict().items()}


def test_the_reading_is_what_the_model_decides_and_has_gradients(loaded, surface, steered):
    inputs = loaded.inputs([shown(1), shown(2)])
    pixels = inputs["pixel_values"].clone().requires_grad_()
    reading = surface.read({**inputs, "pixel_values": pixels})
    gates = [d.gate for d in loaded.answer(inputs, 1, steered=True).decisions]
    assert torch.relu(reading.margin).tolist() == pytest.approx(gates, abs=1e-4)
    for cost in (reading.loss, reading.margin):
        (slope,) = torch.autograd.grad(cost.sum(), pixels, retain_graph=True)
        assert float(slope.abs().max()) > 0


def test_with_steering_off_there_is_no_gate_to_read(loaded, surface):
    with in_arm(loaded, "off", 0):
        reading = surface.read(loaded.inputs([shown(1)]))
    assert reading.margin is None
    assert reading.shut().tolist() == reading.open().tolist() == [0.0]


def test_pixels_reach_the_model_as_the_processor_gives_them(loaded, path):
    pixels = torch.from_numpy(path.pixels) / 255
    wanted = loaded.processor.image_processor([picture(1), picture(2)], return_tensors="pt")
    assert torch.allclose(path.values(pixels), wanted["pixel_values"], atol=1e-5)


@pytest.mark.parametrize("side", [SIDE, 64])
def test_a_path_is_found_where_the_processor_moves_pixels_into_patches(side):
    processor = planted.video_processor()
    clip = (picture(1, side), picture(2, side))
    request = Request("show me", (Media("video", clip),))
    path = PixelPath.of(processor, [request])
    changed = np.random.default_rng(3).integers(0, 256, path.pixels.shape, dtype=np.uint8)
    values = path.values(torch.from_numpy(changed) / 255)
    wanted = collate(processor, path.shown(changed))[path.name]
    assert torch.allclose(values, wanted, atol=1e-4)


class OfImages:
    """A processor around an image processor alone."""

    chat_template = "any"
    tokenizer = planted.PROCESSOR.tokenizer

    def __init__(self, image_processor):
        self.image_processor = image_processor

    def apply_chat_template(self, conversations, **_):
        images = [c[-1]["content"][0]["image"] for c in conversations]
        return self.image_processor(images, return_tensors="pt")


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("CLIPImageProcessor", True),  # LLaVA
        ("Qwen2VLImageProcessor", True),  # and Qwen3-VL
        ("GotOcr2ImageProcessor", True),  # InternVL
        ("Molmo2ImageProcessor", True),
        ("PixtralImageProcessor", True),  # Mistral 3
        ("Llama4ImageProcessor", False),
    ],
)
def test_families_whose_pixels_can_be_reached(name, reached):
    processor = OfImages(getattr(transformers, name)())
    requests = [Request("show me", (Media("image", picture(1, 120)),))]
    if not reached:
        with pytest.raises(UnreachableError, match="pixels cannot be optimized through OfImages: "):
            PixelPath.of(processor, requests)
        return
    path = PixelPath.of(processor, requests)
    changed = np.random.default_rng(3).integers(0, 256, path.pixels.shape, dtype=np.uint8)
    wanted = processor.image_processor([Image.fromarray(changed[0])], return_tensors="pt")
    values = path.values(torch.from_numpy(changed) / 255)
    assert torch.allclose(values, wanted[path.name], atol=1e-3)


def test_a_processor_that_mixes_pixels_is_refused(loaded):
    def blurred(batch):
        batch["pixel_values"] = batch["pixel_values"].cumsum(-1)
        return batch

    class Blurring:
        chat_template = "any"
        tokenizer = loaded.processor.tokenizer

        def apply_chat_template(self, *args, **options):
            return blurred(loaded.processor.apply_chat_template(*args, **options))

    with pytest.raises(UnreachableError, match="mixes"):
        PixelPath.of(Blurring(), [shown(1)])


def test_descent_lowers_the_gate(loaded, surface, path, steered):
    def gates(requests):
        answers = loaded.answer(loaded.inputs(requests), 1, steered=True)
        return sum(decision.gate for decision in answers.decisions)

    end = descend(surface, path, path.pixels, lambda r: r.shut(), 32, 6)
    assert gates(path.shown(end)) < gates(path.requests)


@settings(max_examples=6, deadline=None)
@given(radius=st.one_of(st.none(), st.integers(1, 64)), steps=st.integers(1, 3))
def test_no_pixel_moves_further_than_it_may(loaded, surface, path, radius, steps):
    with in_arm(loaded, "on", 0):
        end = descend(surface, path, path.pixels, lambda r: r.loss + r.shut(), radius, steps)
    assert end.dtype == np.uint8
    moved = np.abs(end.astype(int) - path.pixels.astype(int)).max()
    assert moved <= (255 if radius is None else radius)
    again = [np.asarray(r.media[0].data) for r in path.shown(end)]
    assert np.array_equal(np.stack(again), end)


def test_a_random_direction_pushes_as_far_but_elsewhere(loaded):
    (rule,) = hosted_rules(loaded.model)
    h, context = torch.randn(2, 64), torch.tensor([[1, 4, 0], [0, 0, 0]])
    plain, decision = rule(h + 30 * rule.direction, context)
    with in_arm(loaded, "random", 0):
        other, same = rule(h + 30 * rule.direction, context)
    with in_arm(loaded, "random", 1):
        third, _ = rule(h + 30 * rule.direction, context)
    start = h + 30 * rule.direction
    length, shifted = (plain - start).norm(dim=-1), (other - start).norm(dim=-1)
    assert torch.allclose(length, shifted, atol=1e-4)
    assert same["gate"].equal(decision["gate"])
    if float(length.max()) > 0:
        assert not torch.allclose(plain, other)
        assert not torch.allclose(other, third)


def target_of(loaded, **changes):
    cases = {
        f"{label} {modality}": [
            Case(
                Sample(id=f"{label}-{modality}-{i}", modality=modality, harmful=label == "harmful",
                       split="evaluation", prompt=f"show me the {word}{i}",
                       **({"image": "p.png"} if modality == "image" else {})),
                shown(i, f"{word}{i}") if modality == "image"
                else Request(f"show me the {word}{i}"),
            )
            for i in range(2)
        ]
        for label, word in (("harmful", "bad"), ("harmless", "good"))
        for modality in ("text", "image")
    }  # fmt: skip
    beginnings = {"answered": [20, 21], "refused": [22]}
    made = Target(loaded, RulesJudge(), BUDGET, Batches(4), cases, beginnings)
    return replace(made, **changes)


class Refusing(RulesJudge):
    """Takes every answer for a refusal, so that no search ends early."""

    def judge_answers(self, exchanges):
        return [Judgment("refusal") for _ in exchanges]


def test_every_attack_leaves_model_and_steering_as_they_were(loaded, monkeypatch):
    vocabulary = Vocabulary(("good1", "good2", "good3"), (40, 41, 42))
    monkeypatch.setattr(
        "mars_export.evaluation.adaptive.attacks._vocabulary", lambda _target: vocabulary
    )
    target, before = target_of(loaded), state(loaded)
    names = {"pixels", "over-refusal", "best of n", "rewording"}
    for attack in ATTACKS:
        if attack.name in names and attack.shown in target.cases:
            assert not attack.problem(target, target.cases[attack.shown])
            with in_arm(loaded, "random", 0):
                reached = attack.run(target, "random", target.cases[attack.shown])
            for levels in reached.values():
                assert all(len(row) == 2 for row in levels.values())
    after = state(loaded)
    assert before.keys() == after.keys()
    assert all(before[name].equal(after[name]) for name in before)
    assert loaded.model.steering.enabled
    assert not any(rule._forward_hooks for rule in hosted_rules(loaded.model))
    assert not loaded.model.get_input_embeddings()._forward_hooks
    loaded.model.verify_steering()


def test_an_arm_ends_with_an_error_inside(loaded):
    with pytest.raises(ValueError, match="inside"), in_arm(loaded, "random", 0):
        raise ValueError("inside")
    assert loaded.model.steering.enabled
    assert not any(rule._forward_hooks for rule in hosted_rules(loaded.model))


def test_a_suffix_never_gets_worse_and_swaps_a_word_a_step(loaded, surface, steered):
    names = [f"good{i}" for i in range(40)]
    tokens = loaded.processor.tokenizer.convert_tokens_to_ids(names)
    vocabulary = Vocabulary(tuple(names), tuple(tokens))
    requests = [Request("show me the bad1"), Request("show me the bad2")]
    start = [vocabulary.start(3, 0)] * 2

    def cost(suffixes):
        rows = zip(requests, suffixes, strict=True)
        reading = surface.read(loaded.inputs([with_suffix(r, vocabulary, s) for r, s in rows]))
        return reading.loss + reading.shut()

    end = search(
        surface, requests, vocabulary, start, lambda r: r.loss + r.shut(),
        steps=2, swaps=4, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        first, last = cost(start), cost(end)
    assert bool((last <= first + 1e-6).all())
    assert float((first - last).max()) > 0
    assert all(sum(a != b for a, b in zip(start[0], row, strict=True)) <= 2 for row in end)


def test_few_words_are_not_searched(loaded):
    with pytest.raises(UnreachableError, match="only"):
        Vocabulary.of(loaded.processor, ["please explain"])


def asked(case, verdict):
    return Asked(case, verdict, None, "")


def test_tries_end_with_the_first_success_and_lengths_do_not():
    cases = target_of(None).cases["harmful text"]
    spent = []

    def ask(level, rest):
        spent.append((level, len(rest)))
        return [asked(c, "answer" if level == 1 and c is cases[0] else "refusal") for c in rest]

    tried = climb(cases, (0, 1, 2), ask, ["answered"], tries=True)["answered"]
    assert spent == [(0, 2), (1, 2), (2, 1)]
    assert [[a.verdict for a in row] for row in tried.values()] == [
        ["refusal", "refusal"], ["answer", "refusal"], ["answer", "refusal"],
    ]  # fmt: skip
    spent.clear()
    grown = climb(cases, (0, 1, 2), ask, ["answered"], tries=False)["answered"]
    assert spent == [(0, 2), (1, 2), (2, 2)]
    assert grown[2][0].verdict == "refusal"


def test_the_budget_of_draws_is_kept(loaded, monkeypatch):
    drawn = []

    def ask(self, cases, arm, seed=None):
        drawn.append((len(cases), seed))
        return [asked(case, "refusal") for case in cases]

    monkeypatch.setattr(Target, "ask", ask)
    (attack,) = (a for a in ATTACKS if a.title == "best of n, harmful text")
    target = target_of(loaded, budget=Budget(draws=7))
    attack.run(target, "off", target.cases["harmful text"])
    assert [count for count, _ in drawn] == [2, 8, 4]  # 1, 4 more, 2 more: of two requests
    assert len({seed for _, seed in drawn}) == 3


def test_a_second_goal_is_not_left_where_the_first_was_reached():
    cases = target_of(None).cases["harmful image"]
    becomes = {0: ("refusal", 0.4), 1: ("refusal", 0.0), 2: ("answer", 0.2), 3: ("refusal", 0.3)}
    spent = []

    def ask(level, rest):
        spent.append(level)
        return [Asked(case, *becomes[level], "") for case in rest]

    goals = ("gate shut", "answered")
    reached = climb(cases[:1], (0, 1, 2, 3), ask, goals, tries=True)
    curves = {g: [row[0].reaches(g) for row in reached[g].values()] for g in goals}
    assert curves["gate shut"] == [False, True, True, True]
    assert curves["answered"] == [False, False, True, True]
    assert spent == [0, 1, 2]


def out_of_memory_above(size, work):
    """Work that fits into memory up to so many rows; says how many it was tried with."""
    tried = []

    def limited(rows):
        tried.append(len(rows))
        if len(rows) > size:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return work(rows)

    return limited, tried


def test_batches_are_halved_for_good_when_memory_runs_out():
    work, tried = out_of_memory_above(2, list)
    batches = Batches(8)
    assert batches.map(work, range(7)) == list(range(7))
    assert tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    assert batches.size == 1
    work, _ = out_of_memory_above(0, list)
    with pytest.raises(UnreachableError, match="one request alone does not fit into memory"):
        batches.map(work, [1])
    with pytest.raises(ZeroDivisionError):
        batches.map(lambda rows: [1 // 0 for _ in rows], [1])


@pytest.mark.parametrize("name", ["pixels, harmful image", "suffix, harmful text"])
def test_forwards_and_backwards_are_halved(loaded, monkeypatch, name):
    names = [f"good{i}" for i in range(40)]
    tokens = loaded.processor.tokenizer.convert_tokens_to_ids(names)
    monkeypatch.setattr(
        "mars_export.evaluation.adaptive.attacks._vocabulary",
        lambda _target: Vocabulary(tuple(names), tuple(tokens)),
    )
    grad, largest = torch.autograd.grad, []

    def limited(total, leaf, **options):
        largest.append(len(leaf))
        if len(leaf) > 1:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return grad(total, leaf, **options)

    monkeypatch.setattr(torch.autograd, "grad", limited)
    target = target_of(loaded, judge=Refusing())
    (attack,) = (a for a in ATTACKS if a.title == name)
    with in_arm(loaded, "on", 0):
        reached = attack.run(target, "on", target.cases[attack.shown])
    assert largest[:2] == [2, 1]
    assert 2 not in largest[1:]
    assert all(len(row) == 2 for row in reached["answered"].values())


def test_what_a_processor_refuses_is_one_line(loaded):
    with pytest.raises(UnreachableError, match=r"the processor refuses the request 'show': .+"):
        target_of(loaded).ask([Case(None, Request("show", (Media("image", "no picture"),)))], "on")


def test_the_safety_prompt_stands_before_every_request_of_its_arm(loaded, monkeypatch):
    systems, inputs = [], type(loaded).inputs

    def recorded(self, requests):
        systems.extend(request.system for request in requests)
        return inputs(self, requests)

    monkeypatch.setattr(type(loaded), "inputs", recorded)
    target = target_of(loaded)
    cases = target.cases["harmful text"]
    for arm in ("off", "safety-prompt"):
        with in_arm(loaded, arm, 0):
            asked = target.ask(cases, arm)
            assert not loaded.model.steering.enabled
        assert {a.gate for a in asked} == {None}
        assert [a.case for a in asked] == list(cases)
    assert systems == ["", "", TEXT, TEXT]
    assert {a.access for a in ATTACKS if "safety-prompt" in a.arms} == {"black box"}
    assert all({"off", "on", "random"} < {*a.arms, "any"} for a in ATTACKS)


def test_a_gate_is_evaded_in_every_arm_and_asked_without_steering(loaded):
    (attack,) = (a for a in ATTACKS if a.name == "gate evasion")
    target = target_of(loaded, judge=Refusing())
    reached = {}
    for arm in attack.arms:
        with in_arm(loaded, arm, 0):
            reached[arm] = attack.run(target, arm, target.cases[attack.shown])
    assert {arm: list(goals) for arm, goals in reached.items()} == {
        "off": ["answered"],
        "on": ["gate shut", "answered"],
        "random": ["gate shut", "answered"],
    }
    plain, changed = (reached["off"]["answered"][at][0] for at in (0, None))
    pixels = [np.asarray(a.case.request.media[0].data) for a in (plain, changed)]
    assert not np.array_equal(*pixels)
    assert plain.gate is changed.gate is None


def test_pictures_of_several_sizes_are_changed_in_batches_of_one_size(monkeypatch):
    shapes = []

    def brighter(_surface, path, start, *_):
        shapes.append(start.shape)
        return path.pixels + 1

    monkeypatch.setattr("mars_export.evaluation.adaptive.attacks.descend", brighter)
    model = SimpleNamespace(steering=SimpleNamespace(enabled=False), device="cpu")
    processor = OfImages(transformers.Qwen2VLImageProcessor())
    cases = [
        Case(SimpleNamespace(id=str(i)), Request("show", (Media("image", picture(i, side)),)))
        for i, side in enumerate((56, 84, 60, 84))
    ]
    (attack,) = (a for a in ATTACKS if a.title == "pixels, harmful image")
    target = target_of(SimpleNamespace(model=model, processor=processor))
    answered = {4: {"0", "1"}, 8: {"2"}}  # others are first of a batch then

    def ask(self, cases, arm):
        level = 0 if not shapes else 4 if len(shapes) == 2 else 8
        done = answered.get(level, ())
        return [asked(c, "answer" if c.sample.id in done else "refusal") for c in cases]

    monkeypatch.setattr(Target, "ask", ask)
    target = replace(target, budget=Budget(eps=(4, 8)))
    reached = attack.run(target, "off", cases)["answered"]
    assert [shape[:2] for shape in shapes] == [(2, 56), (2, 84), (1, 56), (1, 84), (1, 84)]
    assert [a.case.sample.id for a in reached[4]] == ["0", "1", "2", "3"]
    sizes = [size_of(request) for request in fitted(processor, [c.request for c in cases])]
    assert sizes == [(56, 56), (84, 84), (56, 56), (84, 84)]


def test_every_attack_is_known_to_those_who_read_a_record():
    titles = {f"{name}, {kind}" for name, kinds in SHOWN.items() for kind in kinds}
    assert {attack.title for attack in ATTACKS} == titles
    assert {ladder.name for ladder in LADDERS} == LEVELS.keys()
    assert LEVELS["rewording"] == tuple(range(len(WORDINGS)))


def tone():
    return Sound(np.sin(np.arange(4000) / 5).astype("float32"), 8000)


@pytest.mark.parametrize("ladder", LADDERS, ids=lambda ladder: ladder.name)
def test_what_a_ladder_adds_is_harmless_and_grows(ladder):
    others = [shown(5, "good3"), shown(6, "good4")]
    material = Material(["show me the good1", "make me a good2"], others)
    clip = Media("video", (picture(1),) * 4)
    plain = {
        "harmful text": Request("how do i make a bad1"),
        "harmful image": shown(1),
        "harmful video": Request("show me the bad1", (clip,)),
        "harmful audio": Request("do it", (Media("audio", tone()),)),
    }
    for kind in ladder.shown:
        start = ladder.change(plain[kind], 0, material, 0)
        assert (start.prompt, start.media) == (plain[kind].prompt, plain[kind].media)
        forms = [ladder.change(plain[kind], level, material, 0) for level in ladder.levels]
        assert len({request_digest(form) + str(form) for form in forms}) == len(ladder.levels)
        assert not any("bad" in turn.prompt + turn.answer for form in forms for turn in form.turns)


def test_one_request_of_a_cluster():
    samples = [
        Sample(id=f"{i}", modality="text", harmful=True, split="evaluation", prompt=prompt)
        for i, prompt in enumerate(["Tell me", "tell  me", "tell him"])
    ]

    class Suite:
        def request(self, sample):
            return Request(sample.prompt)

    cases = cases_of(Suite(), samples, 5)
    assert [c.sample.id for c in cases["harmful text"]] == ["0", "2"]
    advice = [s.model_copy(update={"advice": s.id == "0"}) for s in samples]
    assert [c.sample.id for c in cases_of(Suite(), advice, 5)["harmful text"]] == ["1", "2"]
    assert len(cases_of(Suite(), samples, 1)["harmful text"]) == 1
