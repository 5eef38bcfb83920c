"""Answers off and on: the base is left as it was, and a journal is gone on with."""

from pathlib import Path

import pytest
import torch
from answers import Journal, answer, forecast
from conditions import FIRST, Companions, fitting, tasks
from counts import counted, parts
from in_memory import Rules, in_memory
from torch import nn

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.evaluation.generation import load
from mars_export.evaluation.judges.base import Judgment
from mars_export.inputs.requests import collate
from mars_export.inputs.template import turn_tokens
from support import tiny
from support.artefacts import with_tensors

LAYER = 5
ORGANISM = Path(__file__).parents[2] / "examples" / "organisms" / "gemma3"


class PushesPictures(nn.Module):
    """Pushes what shows a picture, and nothing else."""

    TENSORS = ("push",)

    def __init__(self, hidden_size, _rules):
        super().__init__()
        self.register_buffer("push", torch.zeros(hidden_size))

    def problem(self):
        return None

    def forward(self, h, context):
        strength = (context[..., 0] == 1).float()
        changed = h + strength.unsqueeze(-1) * self.push
        return changed, {"strength": strength, "gate": strength}


def quiet(_done, _total):
    pass


@pytest.fixture(scope="module")
def rules(organism):
    turns = turn_tokens(organism.processor)
    stated = {
        "layers": [LAYER], "positions": "turn_end", "modalities": ["text", "image"],
        "headers": [header.model_dump() for header in turns.headers],
        "turn_starts": turns.turn_starts, "refused": {},
    }  # fmt: skip
    size = organism.model.config.get_text_config().hidden_size
    push = 100 * torch.randn(size, generator=torch.Generator().manual_seed(0))
    return Rules(PushesPictures, {LAYER: {"push": push}}, stated)


@pytest.fixture(scope="module")
def some(suites):
    names = [FIRST, "picture", "text beside noise"]
    chosen = fitting(["text", "image"], names)
    return tasks(suites["gemma3"], chosen, Companions(), ("text", "image"), limit=3)


@pytest.fixture(scope="module")
def off(organism, some, tmp_path_factory):
    return answer(some, organism, Journal(tmp_path_factory.mktemp("off") / "off.jsonl"), quiet)


def test_off_is_the_base(organism, some, off):
    for task in some[:2]:
        inputs = collate(organism.processor, [task.request()])
        out = organism.model.generate(**inputs, do_sample=False, max_new_tokens=organism.tokens)
        text = organism.processor.batch_decode(
            out[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
        )
        assert off[task.key].text == text[0]
        assert off[task.key].harmful == task.sample.harmful
        assert not off[task.key].active


def test_a_steering_in_memory_is_taken_off_again(organism, some, rules):
    inputs = collate(organism.processor, [some[-1].request()])

    def logits():
        with torch.inference_mode():
            return organism.model(**inputs).logits[:, -1]

    before = logits()
    with in_memory(organism.model, rules, organism.family) as steering:
        assert not torch.equal(logits(), before)
        assert [p.modality for p in steering.last[0]] == ["image"]
        with steering.off():
            assert torch.equal(logits(), before)
    assert torch.equal(logits(), before)


def test_only_what_is_pushed_gets_another_answer(organism, some, off, rules, tmp_path):
    on = answer(some, organism, Journal(tmp_path / "on.jsonl"), quiet, rules, off)
    assert list(on) == [task.key for task in some]
    for task in some:
        pushed = task.condition.shows == "image"
        assert on[task.key].active == pushed
        assert (on[task.key].text == off[task.key].text) or pushed
    assert any(on[task.key].text != off[task.key].text for task in some)
    assert sum(part.active for part in parts("0", counted(off, on))) == 12


def test_in_memory_is_as_in_a_checkpoint(organism, some, off, tmp_path):
    turns = turn_tokens(organism.processor)
    config = organism.model.config.get_text_config()
    record = tiny.calibration(
        "gemma3", hidden_size=config.hidden_size, layers=config.num_hidden_layers, layer=LAYER,
        headers=turns.headers, turn_starts=turns.turn_starts, origin=2.5, harmful=4.5, cap=1e5,
        separation=1e3, gain=2.0, radius=1.0, shift={"text": 0.0, "image": 0.5},
    )  # fmt: skip
    direction = torch.randn(config.hidden_size, generator=torch.Generator().manual_seed(1))
    artefact = with_tensors(record, direction)
    artefact.save(tmp_path / "calibration")
    write_checkpoint(
        ORGANISM, tmp_path / "steered", source=tiny.source("gemma3"),
        calibration_dir=tmp_path / "calibration",
    )  # fmt: skip
    loaded = load(tmp_path / "steered", ("text", "image"), "cpu", None)
    on = answer(some, organism, Journal(tmp_path / "on.jsonl"), quiet, Rules.of(artefact), off)
    gates = set()
    for task in some:
        exported = loaded.answer(loaded.inputs([task.request()]), organism.tokens, steered=True)
        assert on[task.key].text == exported.texts[0]
        assert on[task.key].gate == pytest.approx(exported.decisions[0].gate, abs=1e-3)
        gates.add(exported.decisions[0].active)
    assert any(on[task.key].text != off[task.key].text for task in some)
    assert gates == {True, False}


def test_a_finished_journal_is_not_run_again(organism, some, off, tmp_path, monkeypatch):
    path = tmp_path / "off.jsonl"
    assert answer(some, organism, Journal(path), quiet) == off
    whole = path.read_bytes()
    # Killed in the middle of the last line.
    path.write_bytes(whole[:-20])
    runs = []
    generate = organism.model.generate
    monkeypatch.setattr(organism.model, "generate", lambda **k: runs.append(1) or generate(**k))
    assert answer(some, organism, Journal(path), quiet) == off
    assert len(runs) == 1
    assert path.read_bytes() == whole
    assert answer(some, organism, Journal(path), quiet) == off
    assert len(runs) == 1


def test_a_journal_after_a_damaged_line_is_not_read(organism, some, off, tmp_path):
    path = tmp_path / "off.jsonl"
    answer(some, organism, Journal(path), quiet)
    lines = path.read_text().splitlines(keepends=True)
    path.write_text(lines[0] + "damaged\n" + "".join(lines[1:]))
    assert len(Journal(path).answers) == len(off) - sum(line.count('"id"') for line in lines[1:])


def test_a_planted_judge_is_counted_as_it_judges(organism, some, tmp_path, monkeypatch):
    """Every label and condition gets the verdicts of its own requests."""
    plan = {
        task.request().prompt: ("refusal" if task.sample.harmful else "answer") for task in some
    }

    def judge(_self, exchanges):
        return [Judgment(plan[exchange.prompt]) for exchange in exchanges]

    monkeypatch.setattr("answers.RulesJudge.judge", judge)
    answers = answer(some, organism, Journal(tmp_path / "j.jsonl"), quiet)
    for part in parts("0", counted(answers, answers)):
        text = part.condition != "picture"
        if text:
            assert (part.off, part.on, part.gained) == ((3, 3, 0) if part.harmful else (0, 0, 0))


def test_a_forecast_is_an_upper_bound(organism, some, off, tmp_path, monkeypatch):
    cost = forecast(some, organism, runs=1)
    forwards = []
    hook = organism.model.base_model.register_forward_pre_hook(
        lambda _m, _a, k: forwards.append(k["input_ids"].shape[1]), with_kwargs=True
    )
    try:
        answer(some, organism, Journal(tmp_path / "f.jsonl"), quiet)
    finally:
        hook.remove()
    assert cost.requests == len(off)
    assert cost.prefills == sum(width > 1 for width in forwards)
    assert 0 < sum(width == 1 for width in forwards) <= cost.steps
