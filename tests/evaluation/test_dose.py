import pytest
from evaluation.fakes import FakeLoaded, save_manifest, save_suite

from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import ready
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.dose import FACTORS, MOST, dosed, doses
from mars_export.evaluation.engines.in_process import InProcess
from mars_export.evaluation.job import Job
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import read_suite
from mars_export.methods import method_named


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluate a directory with a given fake; returns the report."""
    suite = read_suite(save_suite(tmp_path / "suite"))

    def run(loaded=None, name="steered", progress=None, controls=True):
        if not (tmp_path / name).exists():
            save_manifest(tmp_path / name)
        monkeypatch.setattr(ready, "load_calibrated", lambda *_: loaded or FakeLoaded())
        options = EvaluationOptions(batch_size=4, device="cpu", controls=controls)
        return runner.evaluate(tmp_path / name, suite, options, progress=progress)

    return run


def result(number, arm, verdict="answer", **changes):
    fields = {"modality": "image", "harmful": True, "response": "", "log_odds": -1.0}
    fields |= {"cluster": f"c{number % 2}", "push": 0.1 * number if arm != "off" else None}
    return SampleResult(id=f"s{number}", arm=arm, verdict=verdict, **{**fields, **changes})


def everything(n, **changes):
    """Answers of n requests at every dose: those of the evaluation, and those of the doses."""
    plain = [result(i, arm, **changes) for i in range(n) for arm in ("off", "on")]
    scaled = [result(i, arm) for i in range(n) for arm in FACTORS if arm not in ("off", "on")]
    return plain, scaled


def test_every_dose_is_of_the_same_requests():
    plain, scaled = everything(4)
    plain += [result(9, arm, "refusal", push=0.9) for arm in ("off", "on", "safety-prompt")]
    plain += [result(1, "on", "refusal", variant="noise")]
    (dose,) = doses(plain, scaled)
    assert [point.factor for point in dose.points] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert {(p.refused.count, p.refused.n, p.refused.clusters) for p in dose.points} == {(0, 4, 2)}
    assert (dose.push.n, dose.push.median) == (5, pytest.approx(0.2))  # of all requests


def test_what_is_unknown_or_broken_is_counted_and_is_no_refusal():
    plain, scaled = everything(3)
    scaled[2] = result(0, "on x 2", "degenerate", log_odds=None)
    scaled[5] = result(1, "on x 2", "unknown")
    scaled[8] = result(2, "on x 2", "rebuttal", log_odds=2.0)
    (dose,) = doses(plain, scaled)
    last = dose.points[-1]
    assert (last.refused.count, last.degenerate.count, last.unknown.count) == (1, 1, 1)
    assert last.log_odds is None  # the mean of the others would be another quantity
    assert dose.points[-2].log_odds == -1.0


def test_without_doses_there_is_no_curve():
    assert doses(everything(3)[0], []) == []


def test_a_push_that_was_not_measured_is_not_zero():
    (dose,) = doses(*everything(3, push=None))
    assert dose.push is None


def test_the_report_has_a_curve_for_each_kind(run):
    report = run()
    curves = {(d.modality, d.harmful): d for d in report.dose}
    assert set(curves) == {(m, h) for m in ("text", "image") for h in (True, False)}
    image = curves["image", True]
    # The fake's logit is its strength, 6 for a picture, and 1 less where it answers.
    assert [point.log_odds for point in image.points] == [-1.0, 2.0, 5.0, 8.0, 11.0]
    assert [point.refused.count for point in image.points] == [0, 5, 5, 5, 5]
    assert (image.push.n, image.push.median) == (5, 0.06)
    assert "dose" not in report.skipped


def test_at_most_so_many_of_a_kind(run, monkeypatch):
    monkeypatch.setattr("mars_export.evaluation.dose.MOST", 2)
    report = run()
    assert {point.refused.n for dose in report.dose for point in dose.points} == {2}
    assert {dose.push.n for dose in report.dose} == {5}
    assert MOST == 40


def test_harmful_requests_for_advice_are_left_out(tmp_path):
    plain, scaled = everything(2)
    refused = [result(9, arm, "refusal", advice=True, push=0.9) for arm in ("off", "on")]
    (dose,) = doses(plain + refused, scaled)
    assert ({p.refused.n for p in dose.points}, dose.push.n) == ({2}, 2)

    suite = read_suite(save_suite(tmp_path / "suite"))
    samples = [s.model_copy(update={"advice": s.modality == "text"}) for s in suite.samples]
    save_manifest(tmp_path / "steered")
    arms = open_arms(tmp_path / "steered", ["none"])
    job = Job(arms, suite, samples, RulesJudge(), EvaluationOptions(), InProcess())
    assert {(s.modality, s.harmful) for s in dosed(job).samples} == {
        ("image", True), ("image", False), ("text", False),
    }  # fmt: skip


def test_a_report_without_doses_says_why(run, monkeypatch):
    assert run(controls=False).skipped["dose"] == "left out together with the controls"
    broken = run(FakeLoaded(broken="inert"), name="inert")
    assert (broken.dose, broken.skipped["dose"]) == ([], "steering is not active")
    monkeypatch.setattr(type(method_named("mars")), "site", "template")
    assert "no strength" in run(name="other").skipped["dose"]


def test_doses_go_on_where_they_were_killed(run):
    complete, ticks = FakeLoaded(), []
    whole = run(complete)
    with pytest.raises(KeyboardInterrupt):
        run(FakeLoaded(dies_after=len(complete.batches) - 2), name="killed")
    again = run(name="killed", progress=lambda *now: ticks.append(now))
    assert again.dose == whole.dose
    assert ticks[0][0] > 0
    assert ticks[-1][0] == ticks[-1][1]
