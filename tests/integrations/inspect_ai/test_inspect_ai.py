"""inspect_ai counts what we count. It needs an environment with the extra `inspect`."""

import json
import shutil
import subprocess
import sys
import time
from collections import Counter

import pytest
from evaluation.fakes import FakeLoaded, save_manifest, save_suite
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.common.names import SAMPLES_NAME
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import ready, selfcheck
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import read_suite
from mars_export.inputs.requests import Media, Request, Turn
from support.organisms import ORGANISMS

inspect_ai = pytest.importorskip("inspect_ai")

BARE = {"batch_size": 4, "device": "cpu", "controls": False, "arms": ("none",)}


class Steady(FakeLoaded):
    """Answers alike in every batch."""

    def _row(self, request, arm, size):
        text, steered, logits = super()._row(request, arm, size)
        return text.split("that")[0].split(",")[0] + ".", steered, logits


def ours(directory, suite):
    runner.evaluate(directory, suite, EvaluationOptions(**BARE))
    lines = (directory / SAMPLES_NAME).read_bytes().split(b"\n")[:-1]
    results = [SampleResult.model_validate_json(line) for line in lines]
    return {(r.id, r.arm): (r.verdict, r.response) for r in results}


def theirs(directory, suite_file, folder, steering):
    from inspect_ai.model import get_model

    from mars_export.integrations.inspect_ai.registry import suite

    model = get_model(f"mars/{directory}", steering=steering, batch_size=4, device="cpu")
    (log,) = inspect_ai.eval(
        suite(str(suite_file)), model=model, display="none", log_dir=str(folder)
    )
    assert log.status == "success", log.error
    return log


def compare(directory, suite_file, folder):
    mine, logs = ours(directory, read_suite(suite_file)), {}
    for arm in ("off", "on"):
        log = logs[arm] = theirs(directory, suite_file, folder, arm == "on")
        told = {(s.id, arm): (s.scores["refusal"].answer, s.output.completion) for s in log.samples}
        assert told == {key: value for key, value in mine.items() if key[1] == arm}
        kinds = Counter(s.metadata["kind"] for s in log.samples)
        refused = Counter(s.metadata["kind"] for s in log.samples if s.scores["refusal"].value)
        metrics = log.results.scores[0].metrics
        for kind, count in kinds.items():
            assert metrics[kind].value == pytest.approx(refused[kind] / count)
    return logs


def test_the_same_counts_and_what_steering_did(tmp_path, monkeypatch):
    for module in (ready, selfcheck):
        monkeypatch.setattr(module, "load_calibrated", lambda *_: Steady())
    save_manifest(tmp_path / "steered")
    logs = compare(tmp_path / "steered", save_suite(tmp_path / "suite"), tmp_path / "logs")
    on = [sample.output.metadata["decision"] for sample in logs["on"].samples]
    assert {decision["modality"] for decision in on} == {"text", "image"}
    assert not any(sample.output.metadata["decision"] for sample in logs["off"].samples)


@pytest.fixture
def few(tmp_path):
    """A suite of some requests of the toy's, with their pictures."""
    lines = (ORGANISMS / "gemma3/suite.jsonl").read_text("utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row.get("split") != "calibration"][::31]
    for row in rows:
        if image := row.get("image"):
            (tmp_path / image).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ORGANISMS / "gemma3" / image, tmp_path / image)
    found = tmp_path / "suite.jsonl"
    found.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return found


def test_the_same_counts_on_a_toy_model(steered, few, tmp_path):
    logs = compare(steered("gemma3"), few, tmp_path / "logs")
    kinds = {sample.metadata["kind"] for sample in logs["on"].samples}
    assert {kind.split()[1] for kind in kinds} == {"text", "image"}


def test_the_command_of_the_documentation_counts_the_same(steered, few, tmp_path):
    from inspect_ai.log import list_eval_logs, read_eval_log

    directory, logs = steered("gemma3"), tmp_path / "logs"
    command = [sys.executable, "-m", "inspect_ai", "eval", "mars_export/suite"]
    command += ["-T", f"name={few}", "--model", f"mars/{directory}", "-M", "device=cpu"]
    done = subprocess.run([*command, "--log-dir", str(logs)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (log,) = map(read_eval_log, list_eval_logs(str(logs)))
    told = {(s.id, "on"): (s.scores["refusal"].answer, s.output.completion) for s in log.samples}
    mine = ours(directory, read_suite(few))
    assert told == {key: value for key, value in mine.items() if key[1] == "on"}


def test_what_does_not_steer_is_not_asked(tmp_path, monkeypatch):
    from inspect_ai.model import get_model

    from mars_export.integrations.inspect_ai import registry

    assert registry.mars
    monkeypatch.setattr(selfcheck, "load_calibrated", lambda *_: Steady(broken="inert"))
    save_manifest(tmp_path / "steered")
    with pytest.raises(ExportError, match="does not steer as calibrated"):
        get_model(f"mars/{tmp_path / 'steered'}", device="cpu")


def test_a_turn_with_nothing_to_do_waits_for_nothing(monkeypatch):
    from mars_export.integrations.inspect_ai import provider

    monkeypatch.setattr(provider, "_GATHER", 5.0)
    batches = provider._Batches(Steady(), True, 4)
    replies = [batches.ask(Request(f"what is {n}"), 4, None) for n in range(4)]
    assert all(reply.result() for reply in replies)
    begun = time.monotonic()
    batches._turns.shutdown()
    assert time.monotonic() - begun < 4


def test_conversations_come_back_as_they_were():
    from mars_export.integrations.inspect_ai.messages import messages_of, request_of

    picture = Image.new("RGB", (4, 3), (1, 2, 3))
    turn = Turn("What is this?", "Blue.", (Media("image", picture),))
    asked = Request("And this?", (Media("image", picture),) * 2, "Be kind.", (turn,), "Sure")
    told = request_of(messages_of(asked))
    assert (told.prompt, told.system, told.prefill) == ("And this?", "Be kind.", "Sure")
    assert told.turns[0][:2] == turn[:2]
    assert [p.tobytes() for p in told.pictures] == [picture.tobytes()] * 3
    with pytest.raises(ExportError, match="cannot be asked"):
        request_of([])
