"""Baselines as arms of an evaluation."""

import pytest
from evaluation.fakes import SUITE, FakeLoaded, save_manifest, save_suite

from mars_export.common.errors import ExportError
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import ready
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.baselines import BASELINES
from mars_export.evaluation.baselines import random_direction as some_baseline
from mars_export.evaluation.baselines.base import Fitted
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.suite import read_suite


class Refusing(Fitted):
    """Fitted to nothing, it refuses everything."""

    fits_text = False
    detail = "everything"
    asked = 0

    @classmethod
    def require(cls, record):
        assert record.method == "mars"

    @classmethod
    def fit(cls, study):
        assert not study.loaded.model.steering.enabled
        return cls()

    def answer(self, loaded, batch):
        Refusing.asked += len(batch.requests)
        answers = loaded.answer(batch.inputs, batch.max_new_tokens, steered=False)
        answers.texts[:] = ["I cannot help with that."] * len(batch.requests)
        return answers


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(ready, "load_calibrated", lambda *_: FakeLoaded())
    monkeypatch.setattr(some_baseline, "Fit", Refusing)
    suite = read_suite(save_suite(tmp_path / "suite"))
    save_manifest(tmp_path / "steered")

    def run(*arms, attacks=False, controls=False):
        options = EvaluationOptions(device="cpu", controls=controls, attacks=attacks, arms=arms)
        return runner.evaluate(tmp_path / "steered", suite, options)

    return run


def test_a_baseline_answers_and_the_report_says_what_was_decided(run):
    report = run("none", "random-direction")
    assert [(arm.name, arm.detail, arm.steered) for arm in report.arms] == [
        ("off", "", False), ("on", "", True), ("random-direction", "everything", False),
    ]  # fmt: skip
    refused = {(c.arm, c.harmful, c.modality): c.refused.count for c in report.cells}
    assert refused["random-direction", False, "image"] == 5
    asked = Refusing.asked
    assert run("none", "random-direction") == report
    assert Refusing.asked == asked == len(SUITE)


def test_attacks_and_controls_are_put_to_baselines(run):
    report = run("none", "random-direction", attacks=True, controls=True)
    arms = {cell.arm for variant in report.variants for cell in variant.cells}
    assert arms == {"off", "on", "random-direction"}


def test_a_directory_of_the_same_name_is_another_job(run, tmp_path):
    own = run("none", "random-direction")
    other = run("none", f"random-direction={tmp_path / 'steered'}")
    assert own.run != other.run


def test_prompts_that_are_not_at_hand_are_told_before_the_model_is_loaded(run, monkeypatch):
    monkeypatch.setattr(ready, "load_calibrated", None)
    with pytest.raises(
        ExportError, match=r"--arm cast: it is fitted on .*steered was calibrated on"
    ):
        run("cast")


def test_a_fit_that_fails_is_told_with_the_name_of_the_arm(run, monkeypatch):
    def fit(_study):
        raise ExportError("the model has no layers")

    monkeypatch.setattr(Refusing, "fit", fit)
    with pytest.raises(ExportError, match="--arm random-direction: the model has no layers"):
        run("random-direction")


def test_every_baseline_can_be_named_and_says_what_it_is(tmp_path):
    save_manifest(tmp_path / "steered")
    arms = open_arms(tmp_path / "steered", ["none", *BASELINES])
    assert [arm.name for arm in arms] == ["off", "on", *BASELINES]
    for arm in arms[2:]:
        assert not (arm.steered)
        assert not (arm.optional)
        assert not (arm.must_act("text"))
        assert arm.title == arm.baseline.title
        assert arm.baseline.fit_class.fits_text in (True, False)
