"""The engine asks vLLM as it is to be asked; a stand-in plays vLLM."""

import os
import sys
from types import SimpleNamespace

import pytest
from evaluation.fakes import PROBES, Template, save_manifest

from mars_export.common.errors import ExportError
from mars_export.evaluation import generation
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.engines.base import Asked
from mars_export.evaluation.engines.evidence import Evidence, Witness
from mars_export.evaluation.options import EvaluationOptions
from mars_export.inputs.requests import Request
from mars_export.integrations.vllm.engine import VllmEngine
from mars_export.integrations.vllm.limits import SWITCHABLE

HARM = "I cannot help with that."


class FakeLLM:
    """Gates are those of the probes, times `gate`; requests with `bare` in them are refused."""

    gate, options, seeds = 1.0, None, ()

    def __init__(self, **options):
        type(self).options = options
        self.steering, self.rows, self.count = True, [], 0

    def collective_rpc(self, method, args=()):
        if method == "set_steering":
            assert os.environ[SWITCHABLE]
            (self.steering,) = args
            return [None]
        told, self.rows = self.rows, []
        return [told]

    def generate(self, prompts, options, *, use_tqdm, tokenization_kwargs):
        assert not use_tqdm
        assert tokenization_kwargs == {"add_special_tokens": False}
        type(self).seeds = [one.seed for one in options]
        return [self._out(prompt) for prompt in prompts]

    def _out(self, prompt):
        self.count += 1
        text, shown = prompt["prompt"], "multi_modal_data" in prompt
        harm = "bad" in text
        if self.steering:
            gate = (0.5 if shown else 1.0) * harm * self.gate
            at = ("image" if shown else "text", gate, 12 * gate)
            self.rows.append((f"{self.count}-ab", 7, *at))
        answer = HARM if harm and self.steering else "Here."
        end = "error" if "bare" in text else "length" if "long" in text else "stop"
        told = SimpleNamespace(text=answer, finish_reason=end, stop_reason="no header")
        return SimpleNamespace(request_id=str(self.count), outputs=[told])


@pytest.fixture
def opened(tmp_path, monkeypatch):
    """An engine and the arms `off` and `on`."""
    monkeypatch.setenv(SWITCHABLE, "")  # put back as it was, whatever the engine sets
    monkeypatch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    fake = SimpleNamespace(__version__="0.32.0", LLM=FakeLLM, SamplingParams=SimpleNamespace)
    monkeypatch.setitem(sys.modules, "vllm", fake)
    monkeypatch.setattr(generation, "load_processor", lambda _: Template())
    save_manifest(tmp_path / "steered")
    arms = open_arms(tmp_path / "steered", ["none"])
    answers = {"off": "Here.", "on": HARM}
    witnesses = [Witness(str(n), Request(f"bad {n}"), answers) for n in range(4)]
    engine = VllmEngine(Evidence(witnesses, 8))
    engine.require(arms)
    engine.open(arms, EvaluationOptions(batch_size=3), "cpu")
    return engine, arms


def test_steering_is_switched_and_what_it_did_is_told(opened):
    engine, arms = opened
    asked = Asked([Request("bad"), Request("good long")], 8)
    answers = engine.answers(arms, asked).answers
    assert [a.text for a in answers["off"]] == ["Here.", "Here."]
    assert [a.text for a in answers["on"]] == [HARM, "Here."]
    assert [a.decision for a in answers["off"]] == [None, None]
    assert [(d.active, d.gate, d.position) for d in (a.decision for a in answers["on"])] == [
        (True, 1.0, 7), (False, 0.0, 7),
    ]  # fmt: skip
    assert [a.cut for a in answers["on"]] == [False, True]
    assert FakeLLM.options["enable_prefix_caching"] is False
    assert (FakeLLM.options["enforce_eager"], FakeLLM.options["max_num_seqs"]) == (True, 3)
    engine.answers(arms, asked._replace(seed=5))
    assert FakeLLM.seeds == [5, 6]


def test_the_check_compares_gates_and_answers(opened, monkeypatch):
    engine, arms = opened
    check = engine.self_check(arms[1])
    assert check.active, check.detail
    assert "Largest difference of a gate: 0.0e+00" in check.detail
    assert PROBES[1].modality == "image"
    monkeypatch.setattr(FakeLLM, "gate", 0.4)
    assert "gate of the text probe" in engine.self_check(arms[1]).detail
    monkeypatch.setattr(FakeLLM, "gate", float("nan"))
    assert not engine.self_check(arms[1]).active


def test_a_worker_that_does_not_steer_is_found(opened, monkeypatch):
    engine, arms = opened
    monkeypatch.setattr(FakeLLM, "_out", lambda self, _: SimpleNamespace(
        request_id="1",
        outputs=[SimpleNamespace(text="Here.", finish_reason="stop", stop_reason=None)],
    ))  # fmt: skip
    assert not engine.self_check(arms[1]).active


def test_what_vllm_refuses_is_a_reason(opened):
    engine, _ = opened
    assert engine.problem(Request("good")) == ""
    assert engine.problem(Request("bare")) == "vLLM refuses it: no header"


def test_without_vllm_one_line_says_what_to_do(monkeypatch):
    monkeypatch.setitem(sys.modules, "vllm", None)
    with pytest.raises(ExportError, match=r"vLLM is not installed here; run .*vllm-environment"):
        VllmEngine(Evidence([], 8))


def test_a_checkpoint_that_vllm_does_not_take(opened, monkeypatch):
    engine, arms = opened

    def fails(*_, **__):
        raise RuntimeError("vision_use_head\nand more")

    monkeypatch.setattr(FakeLLM, "__init__", fails)
    with pytest.raises(ExportError, match=r"vLLM does not take it .*vision_use_head"):
        engine.open(arms, EvaluationOptions(), "cpu")
