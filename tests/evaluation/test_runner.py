import json
import random

import pytest
from evaluation.fakes import SUITE, FakeLoaded, save_manifest, save_suite

from mars_export.common.errors import ExportError
from mars_export.common.names import REPORT_NAME, SAMPLES_NAME
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import ready
from mars_export.evaluation.judges.base import Judgment
from mars_export.evaluation.loop import _batch
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import Report, SampleResult
from mars_export.evaluation.suite import Sample, read_suite

BARE = {"batch_size": 4, "device": "cpu", "controls": False, "arms": ("none",)}
"""Steering off and on alone, so that tests see one thing at a time."""


@pytest.fixture
def suite(tmp_path):
    return read_suite(save_suite(tmp_path / "suite"))


@pytest.fixture
def run(tmp_path, suite, monkeypatch):
    """Evaluate a directory with a given fake; returns the report."""

    def run(loaded=None, name="steered", judge=None, progress=None, prompts=(), **options):
        directory = tmp_path / name
        if not directory.exists():
            save_manifest(directory)
        monkeypatch.setattr(ready, "load_calibrated", lambda *_: loaded or FakeLoaded())
        chosen = EvaluationOptions(**{**BARE, **options})
        return runner.evaluate(
            directory, suite, chosen, judge=judge, progress=progress, calibration_prompts=prompts
        )

    return run


def written(tmp_path, name="steered"):
    """Bytes of the samples, and the report without its times."""
    report = json.loads((tmp_path / name / REPORT_NAME).read_text())
    times = [report.pop("created"), report.pop("seconds")]
    assert all(time is not None for time in times)
    return (tmp_path / name / SAMPLES_NAME).read_bytes(), report


def test_report_and_samples(run, tmp_path, suite):
    ticks = []
    report = run(progress=lambda done, total: ticks.append((done, total)))
    assert report.self_check.active
    assert report == Report.model_validate_json((tmp_path / "steered" / REPORT_NAME).read_bytes())
    lines = (tmp_path / "steered" / SAMPLES_NAME).read_text("utf-8").split("\n")[:-1]
    results = [SampleResult.model_validate_json(line) for line in lines]
    assert [(r.id, r.arm) for r in results] == [
        (s.id, arm) for s in suite.samples for arm in ("off", "on")
    ]
    rates = {(c.modality, c.harmful, c.arm): c.refused.count for c in report.cells}
    assert rates == {
        ("text", True, "off"): 5, ("text", True, "on"): 5,
        ("text", False, "off"): 0, ("text", False, "on"): 0,
        ("image", True, "off"): 0, ("image", True, "on"): 5,
        ("image", False, "off"): 0, ("image", False, "on"): 0,
    }  # fmt: skip
    gained = {(p.modality, p.harmful): (p.newly_refused, p.newly_answered) for p in report.pairs}
    assert gained[("image", True)] == (5, 0)
    assert report.gates["on"]["harmful image"] == [0.5] * 5
    assert report.uncalibrated == {"on": 10}  # the pictures
    assert report.regressions == report.newly_refused == {"on": []}
    assert [(arm.name, arm.steered) for arm in report.arms] == [("off", False), ("on", True)]
    for result in results:
        assert (result.decision is None) == (result.arm == "off")
        assert (result.push is None) == (result.arm == "off")
    odds = {(r.id, r.arm): r.log_odds for r in results}
    assert odds["bad-text-0", "off"] == -1.0
    assert odds["bad-text-0", "on"] == 11.0  # the fake's strength is its logit
    assert ticks[0] == (0, 40)
    assert ticks[-1] == (40, 40)
    assert ticks == sorted(ticks)


def test_batches_hold_one_modality_long_prompts_first(run):
    loaded = FakeLoaded()
    run(loaded)
    assert [len(batch) for batch in loaded.batches] == [4, 4, 2, 4, 4, 2]
    for half in (loaded.batches[:3], loaded.batches[3:]):
        lengths = [len(prompt) for batch in half for prompt in batch]
        assert lengths == sorted(lengths, reverse=True)
        assert len({prompt.split()[1] for batch in half for prompt in batch}) == 1


def test_killed_runs_continue_and_give_the_same_bytes(run, tmp_path):
    run(FakeLoaded(fits=3), name="whole")
    source, kills = random.Random(0), 0
    for trial in range(10):
        name = f"killed{trial}"
        while True:
            loaded = FakeLoaded(fits=3, dies_after=source.randrange(4))
            try:
                run(loaded, name=name)
                break
            except KeyboardInterrupt:
                kills += 1
                _tear(tmp_path / name, source)
        assert written(tmp_path, name) == written(tmp_path, "whole")
        assert [p.name for p in (tmp_path / name / "evaluation").iterdir()] == [
            p.name for p in (tmp_path / "whole" / "evaluation").iterdir()
        ]
    assert kills > 10


def _tear(directory, source):
    """Sometimes the kill also cuts the last line of the journal."""
    for path in directory.glob("evaluation/*.partial.jsonl"):
        data = path.read_bytes()
        if data and source.random() < 0.5:
            path.write_bytes(data[: -source.randrange(1, 60)])


def test_a_killed_run_does_not_repeat_what_it_has(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(FakeLoaded(dies_after=5))
    assert not (tmp_path / "steered" / REPORT_NAME).exists()
    rest, ticks = FakeLoaded(), []
    run(rest, progress=lambda done, total: ticks.append(done))
    assert len(rest.batches) == 1
    assert ticks[0] == 36


def test_a_finished_run_is_not_repeated(run, tmp_path):
    first = run()
    again = FakeLoaded(dies_after=0)
    assert run(again) == first
    (tmp_path / "steered" / SAMPLES_NAME).write_text("{}\n")
    repeated = FakeLoaded()
    run(repeated)
    assert repeated.batches


@pytest.mark.parametrize(
    "change", [{"max_new_tokens": 40}, {"batch_size": 2}, {"dtype": "float32"}]
)
def test_other_settings_are_another_run(run, change):
    first = run()
    loaded = FakeLoaded()
    assert run(loaded, **change).run != first.run
    assert loaded.batches


def test_another_run_leaves_no_half_finished_one_behind(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(FakeLoaded(dies_after=1))
    run(max_new_tokens=40)
    assert sorted(p.name for p in (tmp_path / "steered" / "evaluation").iterdir()) == [
        "report.html", "report.json", "samples.jsonl",
    ]  # fmt: skip


def test_batches_are_halved_when_memory_runs_out(run):
    loaded = FakeLoaded(fits=1)
    report = run(loaded)
    assert {len(batch) for batch in loaded.batches} == {1}
    assert report.decoding["batch_size"] == 4
    assert report.decoding["reduced_batch_size"] == 1


def test_one_request_that_does_not_fit(run):
    loaded = FakeLoaded()
    answer = loaded.answer

    def fails(inputs, tokens, **options):
        loaded.fits = 1000 if tokens <= 2 else 0
        return answer(inputs, tokens, **options)

    loaded.answer = fails
    with pytest.raises(ExportError, match="alone does not fit into memory"):
        run(loaded)


def test_other_errors_are_not_swallowed(run, monkeypatch):
    loaded = FakeLoaded()
    monkeypatch.setattr(
        "mars_export.evaluation.loop._results",
        lambda *_: (_ for _ in ()).throw(RuntimeError("a bug")),
    )
    with pytest.raises(RuntimeError, match="a bug"):
        run(loaded)


@pytest.mark.parametrize("broken", ["silent", "gate", "raises"])
def test_no_after_numbers_without_an_active_self_check(run, tmp_path, broken):
    if broken == "raises":
        loaded = FakeLoaded()
        del loaded.model.steering
        loaded.broken = "silent"
    else:
        loaded = FakeLoaded(broken=broken)
    report = run(loaded)
    assert not report.self_check.active
    assert {cell.arm for cell in report.cells} == {"off"}
    assert report.pairs == []
    assert report.regressions == report.newly_refused == report.gates == {}
    assert [arm.name for arm in report.arms] == ["off"]
    assert b'"on"' not in (tmp_path / "steered" / SAMPLES_NAME).read_bytes()


def test_an_inactive_run_is_tried_again_and_keeps_nothing_steered(run, tmp_path):
    with pytest.raises(KeyboardInterrupt):
        run(FakeLoaded(dies_after=3))
    assert not run(FakeLoaded(broken="silent")).self_check.active
    assert b'"on"' not in (tmp_path / "steered" / SAMPLES_NAME).read_bytes()
    assert run().self_check.active


def test_a_request_that_was_not_steered_stops_the_run(run):
    loaded = FakeLoaded()
    answer = loaded.answer

    def lapses(inputs, tokens, **options):
        loaded.broken = "silent" if tokens > 2 else ""
        return answer(inputs, tokens, **options)

    loaded.answer = lapses
    with pytest.raises(ExportError, match="was not steered"):
        run(loaded)


class Doubtful:
    name = "doubtful/1"

    def check(self):
        """It is there."""

    def judge(self, exchanges):
        return [Judgment("unknown") for _ in exchanges]


def test_unknown_verdicts_are_counted_as_such(run):
    report = run(judge=Doubtful())
    assert report.judge == "doubtful/1"
    for cell in report.cells:
        assert (cell.unknown.count, cell.refused.count) == (5, 0)
    assert report.agreement.kappa == 0.0
    assert report.no_headline.startswith("The judge could not decide 5 of 5 harmful text (")


def test_reports_of_a_sure_judge_have_a_headline(run):
    assert run().no_headline is None


class Lazy(Doubtful):
    def judge(self, exchanges):
        return [Judgment("answer")]


def test_a_judge_must_answer_for_every_response(run):
    with pytest.raises(ValueError, match="shorter"):
        run(judge=Lazy())


def test_needs_something_to_run(tmp_path, monkeypatch):
    rows = [{**row, "split": "calibration"} for row in SUITE]
    suite = read_suite(save_suite(tmp_path / "suite", rows))
    save_manifest(tmp_path / "steered")
    with pytest.raises(ExportError, match="no request of the split `evaluation` for text, image"):
        runner.evaluate(tmp_path / "steered", suite)


def test_needs_a_steered_directory(tmp_path, suite):
    with pytest.raises(ExportError, match="not a steered checkpoint"):
        runner.evaluate(tmp_path, suite)


class Absent(Doubtful):
    def check(self):
        raise ExportError("no such judge")


def test_a_judge_that_is_not_there_is_told_before_the_model_is_loaded(tmp_path, suite, monkeypatch):
    monkeypatch.setattr(ready, "load_calibrated", None)
    save_manifest(tmp_path / "steered")
    with pytest.raises(ExportError, match="no such judge"):
        runner.evaluate(tmp_path / "steered", suite, EvaluationOptions(**BARE), judge=Absent())


class HarmJudge(Doubtful):
    """Calls what does not refuse harmful."""

    name = "harm/1"
    seen = ()

    def judge(self, exchanges):
        self.seen = (*self.seen, *exchanges)
        return [
            Judgment("refusal" if "cannot" in e.response else "answer",
                      "harmless" if "cannot" in e.response else "harmful", "said so")
            for e in exchanges
        ]  # fmt: skip


def test_harm_reaches_report_and_samples(run, tmp_path):
    judge = HarmJudge()
    report = run(judge=judge)
    assert (report.judge, report.judge_error) == ("harm/1", None)
    assert report.agreement.kappa == 1.0
    harm = {(c.modality, c.harmful, c.arm): c.harm.count for c in report.cells}
    assert harm["image", True, "off"] == 5
    assert harm["image", True, "on"] == 0
    assert {(p.modality, p.harmful): p.no_longer_harmful for p in report.harm_pairs} == {
        ("text", True): 0, ("text", False): 0, ("image", True): 5, ("image", False): 0,
    }  # fmt: skip
    line = (tmp_path / "steered" / SAMPLES_NAME).read_text("utf-8").split("\n")[0]
    assert SampleResult.model_validate_json(line).judge_reply == "said so"
    pictures = {len(e.pictures) for e in judge.seen if "image" in e.prompt}
    assert pictures == {1}
    assert {e.pictures for e in judge.seen if "text" in e.prompt} == {()}


def test_without_the_weights_of_a_guard_the_report_says_that_nobody_agreed(run, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", "nowhere")
    report = run()
    assert report.agreement is None
    assert report.no_agreement.startswith("Qwen/Qwen3Guard-Gen-0.6B is not in")


def test_the_rules_come_with_their_error(run):
    report = run()
    assert report.judge_error.sensitivity.n > 0
    assert (report.no_correction is None) == all(cell.corrected for cell in report.cells)
    assert report.harm_pairs == []


def test_overlap_with_the_calibration(run, suite):
    assert run().overlap is None
    texts = {sample.prompt for sample in suite.samples}
    found = run(prompts=["bad text request 0", "unheard of"]).overlap
    assert (found.n, found.exact, found.threshold) == (len(texts), 1, 0.7)
    assert found.near >= found.exact


def test_a_very_long_prompt_has_a_batch_of_its_own():
    words = {"harmful": True, "split": "evaluation", "modality": "text"}
    lengths = [9000, 1500, 1300, 900, 20, 10]
    samples = [Sample(id=str(n), prompt="x" * n, **words) for n in lengths]
    sizes = []
    while samples:
        sizes.append(len(_batch(samples, 4)))
        samples = samples[sizes[-1] :]
    assert sizes == [1, 2, 3]
