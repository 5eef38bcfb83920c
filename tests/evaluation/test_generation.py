"""The runner on real steered checkpoints with random weights; only the processor is a stand-in."""

import hashlib
import json
from types import SimpleNamespace

import pytest
import torch
from evaluation.fakes import SUITE, save_suite
from transformers import AutoModelForImageTextToText, BatchFeature

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.input_errors import is_out_of_memory
from mars_export.common.names import SAMPLES_NAME
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import ready
from mars_export.evaluation.generation import Answers, Loaded, load
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.selfcheck import self_check
from mars_export.evaluation.suite import read_suite
from mars_export.inputs.requests import Request
from mars_export.inputs.stimuli import STIMULI
from mars_export.methods.base import Decision, Probe, StimulusSource
from mars_export.methods.safety_prompt import SAFETY_PROMPT
from support import tiny


class Processor:
    """Words become token ids; pictures become random pixels that depend on nothing."""

    chat_template = "words"
    pad_token_id = 0

    def __init__(self, family):
        self.family = family
        self.video_processor = object()

    def apply_chat_template(self, conversations, tokenize, **options):
        if not tokenize:
            return str(conversations)
        assert options["processor_kwargs"]["padding_side"] == "left"
        rows = [self._row(conversation) for conversation in conversations]
        return BatchFeature(tiny.inputs(self.family, rows))

    def _row(self, conversation):
        ids = [
            10 + int(hashlib.sha256(word.encode()).hexdigest(), 16) % 280
            for turn in conversation
            for word in turn["content"][-1]["text"].split()
        ]
        content = conversation[-1]["content"]
        return ids, content[0]["type"] if len(content) > 1 else None

    def batch_decode(self, tokens, skip_special_tokens):
        return [" ".join(f"w{t}" for t in row if t > 2) for row in tokens.tolist()]


@pytest.fixture(scope="module", params=tiny.FAMILIES)
def steered(request, tmp_path_factory):
    """A steered directory whose probes were read off the model itself, and how to load it."""
    family = request.param
    directory, loaded = _exported(family, tmp_path_factory.mktemp(family))
    return family, directory, loaded


def _exported(family, folder, method="mars"):
    _, directory = tiny.export(family, folder, method)

    def loaded():
        model = AutoModelForImageTextToText.from_pretrained(directory, trust_remote_code=True)
        return Loaded(model.eval(), Processor(family))

    _record_probes(directory, loaded(), family)
    return directory, loaded


def _record_probes(directory, loaded, family):
    source = {"generator": STIMULI["image"].generator, "kinds": ("color",), "seed": 0, "count": 1}
    source |= {"width": 8, "height": 8}
    kinds = ["text", "image", *(["video"] if family == "qwen3_vl" else [])]
    frames = {"image": 1, "video": 4}
    stimuli = {kind: StimulusSource(**source, frames=frames[kind]) for kind in kinds[1:]}
    probes = [
        _probe(loaded, kind, " ".join(["again"] * (n + 1))) for kind in kinds for n in range(3)
    ]
    manifest = Manifest.read(directory)
    calibration = manifest.calibration
    neutral = calibration.source.model_copy(update={"stimuli": stimuli})
    calibration = calibration.model_copy(update={"probes": probes, "source": neutral})
    changed = manifest.model_copy(update={"calibration": calibration})
    (directory / MANIFEST_NAME).write_text(changed.model_dump_json())


def _probe(loaded, kind, prompt):
    media = () if kind == "text" else (STIMULI[kind].draw(0, 0, (8, 8), 4, ("color",)),)
    request = Request(prompt, media)
    loaded.model(**loaded.inputs([request]))
    last = loaded.model.steering.last[0][-1]
    strength = last.strength
    expected = Decision(active=strength > 0, gate=last.gate, strength=strength, modality=kind)
    stimuli = () if kind == "text" else (0,)
    # R is 40, kappa 20, and the gate opens over 30.
    return Probe(modality=kind, prompt=prompt, stimuli=stimuli, expected=expected,
                 gate_scale=4 / 3, strength_scale=3200 / 3, significant=strength > 4)  # fmt: skip


def test_self_check_of_a_sound_checkpoint(steered):
    _, directory, loaded = steered
    found = self_check(loaded(), Manifest.read(directory))
    assert found.active, found.detail


def test_self_check_sees_a_wrong_push(steered):
    _, directory, loaded = steered
    broken = loaded()
    steering = broken.model.get_decoder().layers[tiny.LAYER].steering
    steering.bounds[:, 3] *= 1.1  # slope
    steering.bounds[:, 4] *= 1.1  # radius
    assert not self_check(broken, Manifest.read(directory)).active


def test_self_check_sees_steering_that_is_switched_off_inside(steered):
    _, directory, loaded = steered
    broken = loaded()
    layer = broken.model.get_decoder().layers[tiny.LAYER]
    del layer.forward  # the native one of its class is called then
    assert not self_check(broken, Manifest.read(directory)).active


def test_answers_are_those_of_the_model(steered):
    family, _, load_it = steered
    loaded = load_it()
    inputs = loaded.inputs([Request("one two three"), Request("four")])
    with torch.no_grad():
        loaded.model.steering.enabled = False
        base = loaded.model.generate(**inputs, do_sample=False, max_new_tokens=3)
    off, on = (loaded.answer(inputs, 3, steered=steered) for steered in (False, True))
    width = inputs["input_ids"].shape[1]
    assert off.texts == Processor(family).batch_decode(base[:, width:], True)
    assert off.steered == [[], []]
    ends = (inputs["attention_mask"].sum(1) - 1).tolist()
    assert [[r.position for r in row] for row in on.steered] == [[end] for end in ends]
    assert off.logits.shape == on.logits.shape == (2, tiny.VOCABULARY)


def test_steering_is_scaled_in_memory_alone(steered):
    _, _, load_it = steered
    loaded = load_it()
    inputs = loaded.inputs([Request("one two three"), Request("four")])
    off, on = (loaded.answer(inputs, 3, steered=steered) for steered in (False, True))
    none, half, one = (loaded.answer(inputs, 3, steered=True, factor=f) for f in (0.0, 0.5, 1.0))
    assert torch.equal(none.logits, off.logits)
    assert torch.equal(one.logits, on.logits)
    assert not torch.equal(half.logits, on.logits)
    strengths = [[row[-1].strength for row in answers.steered] for answers in (one, half, none)]
    assert strengths[1] == pytest.approx([s / 2 for s in strengths[0]])
    assert strengths[2] == [0.0, 0.0]
    assert on.pushes == off.pushes == [None, None]
    assert half.pushes == pytest.approx([push / 2 for push in one.pushes], abs=1e-6)
    again = loaded.answer(inputs, 3, steered=True)
    assert torch.equal(again.logits, on.logits)
    loaded.model.steering.verify()


def test_a_push_is_measured_against_the_residual_stream(steered):
    _, _, load_it = steered
    loaded, h = load_it(), []
    layer = loaded.model.get_decoder().layers[tiny.LAYER]
    layer.steering.register_forward_pre_hook(lambda _rule, args: h.append(args[0]))
    inputs = loaded.inputs([Request("one two three"), Request("four five")])
    answers = loaded.answer(inputs, 1, steered=True, factor=1.0)
    strengths = [row[-1].strength for row in answers.steered]
    expected = [s / n for s, n in zip(strengths, h[0].norm(dim=-1).tolist(), strict=True)]
    assert answers.pushes == pytest.approx(expected, rel=1e-3)
    assert any(push > 0 for push in answers.pushes)


@pytest.mark.parametrize(
    ("ends", "cut"), [(2, [False, True, True]), ([1, 2], [False, False, True]), (None, [True] * 3)]
)
def test_an_answer_without_an_end_token_was_cut(ends, cut):
    tokens = torch.tensor([[5, 2, 0], [1, 0, 0], [5, 6, 7]])
    model = SimpleNamespace(generation_config=SimpleNamespace(eos_token_id=ends))
    assert Loaded(model, None)._cut(tokens) == cut


def test_whole_run_and_its_repetition(steered, tmp_path, monkeypatch):
    family, directory, loaded = steered
    rows = [row for row in SUITE if row["id"].endswith(("0", "1"))]
    if family == "qwen3_vl":
        rows.append({**rows[0], "id": "clip", "modality": "video"})
    suite = read_suite(save_suite(tmp_path, rows))
    monkeypatch.setattr(ready, "load_calibrated", lambda *_: loaded())
    options = EvaluationOptions(
        batch_size=3, max_new_tokens=4, device="cpu", controls=False, arms=("none",)
    )
    report = runner.evaluate(directory, suite, options)
    assert report.self_check.active, report.self_check.detail
    assert len(report.cells) == (10 if family == "qwen3_vl" else 8)
    lines = (directory / SAMPLES_NAME).read_bytes()
    results = [json.loads(line) for line in lines.split(b"\n")[:-1]]
    assert all(r["decision"]["modality"] == r["modality"] for r in results if r["arm"] == "on")
    (directory / SAMPLES_NAME).unlink()
    runner.evaluate(directory, suite, options)
    assert (directory / SAMPLES_NAME).read_bytes() == lines


def test_arms_of_the_same_weights(steered, tmp_path, monkeypatch):
    family, directory, loaded = steered
    other, load_other = _exported(family, tmp_path, "addition")
    suite = read_suite(save_suite(tmp_path, SUITE[:2]))
    models = {directory: loaded, other: load_other}
    monkeypatch.setattr(ready, "load_calibrated", lambda path, *_: models[path]())
    arms = ("safety-prompt", f"addition={other}")
    options = EvaluationOptions(max_new_tokens=4, device="cpu", controls=False, arms=arms)
    report = runner.evaluate(directory, suite, options)
    names = ["off", "on", "safety-prompt", "addition"]
    assert [arm.name for arm in report.arms] == names
    assert set(report.regressions) == set(names) - {"off"}
    lines = (directory / SAMPLES_NAME).read_bytes().split(b"\n")[:-1]
    results = {arm: [r for r in map(json.loads, lines) if r["arm"] == arm] for arm in names}
    requests = [suite.request(sample) for sample in suite.samples]
    prompted = [SAFETY_PROMPT.change(request) for request in requests]
    by_hand = [
        (loaded, requests, False), (loaded, requests, True), (loaded, prompted, False),
        (load_other, requests, True),
    ]  # fmt: skip
    for (opened, batch, on), rows in zip(by_hand, results.values(), strict=True):
        model, order = opened(), [1, 0]  # long prompts come first
        answers = model.answer(model.inputs([batch[i] for i in order]), 4, steered=on)
        assert [rows[i]["response"] for i in order] == answers.texts
        assert all((row["decision"] is not None) == on for row in rows)
    assert results["off"][0]["response"] != results["safety-prompt"][0]["response"]
    push = tiny.addition(family).tensors["push"].norm().item()
    assert results["addition"][0]["decision"]["strength"] == pytest.approx(push)
    assert set(report.gates) == {"on"}


def test_what_does_not_load_says_so(tmp_path):
    with pytest.raises(ExportError, match=r"config.json cannot be read"):
        load(tmp_path, ["text", "image"], "cpu", None)


def test_only_memory_errors_are_memory_errors():
    assert is_out_of_memory(torch.OutOfMemoryError("x"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    assert not is_out_of_memory(ValueError("x"))


def test_a_request_is_calibrated_for_where_all_its_positions_are():
    def row(*flags):
        return [
            SimpleNamespace(position=i, modality="text", gate=0.0, strength=0.0, calibrated=flag)
            for i, flag in enumerate(flags)
        ]

    rows = [row(True, True), row(False, True), row(None), []]
    decisions = Answers([""] * 4, rows, torch.zeros(4, 1)).decisions
    assert [decision and decision.calibrated for decision in decisions] == [True, False, None, None]
