"""Any number of arms against one reference."""

import pytest
from evaluation.fakes import SUITE, FakeLoaded, save_manifest, save_suite

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation.arms import arm_digests
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SAMPLES_NAME, SampleResult
from mars_export.evaluation.suite import read_suite

ARMS = ("on", "safety-prompt", "other")


class Prompted(FakeLoaded):
    """Refuses every request with a system prompt, and counts what it is asked."""

    def _row(self, request, arm, size):
        text, steered, logits = super()._row(request, arm, size)
        return ("I cannot help with that." if request.system else text), steered, logits


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluate a directory in given arms; every directory loads as a model of its own."""
    suite = read_suite(save_suite(tmp_path / "suite"))
    save_manifest(tmp_path / "other")
    loads = []

    def load(directory, *_):
        loads.append(directory.name)
        return Prompted(broken=broken.get(directory.name, ""))

    def run(*arms, name="steered", attacks=False, **breaks):
        broken.update(breaks)
        save_manifest(tmp_path / name)
        options = EvaluationOptions(batch_size=4, device="cpu", arms=arms, attacks=attacks)
        return runner.evaluate(tmp_path / name, suite, options), loads

    broken = {}
    monkeypatch.setattr(runner, "load_calibrated", load)
    return run


def numbers(report, arm):
    """What a report says of one arm."""
    return {
        "cells": [cell for cell in report.cells if cell.arm == arm],
        "pairs": [pair for pair in report.pairs if pair.arm == arm],
        **{
            name: getattr(report, name).get(arm)
            for name in ("regressions", "newly_refused", "externalities", "gates")
        },
    }


def test_every_arm_is_compared_with_the_reference(run, tmp_path):
    report, loads = run("safety-prompt", f"other={tmp_path / 'other'}")
    assert loads == ["steered", "other"]
    assert [(arm.name, arm.steered) for arm in report.arms] == [
        ("off", False), ("on", True), ("safety-prompt", False), ("other", True),
    ]  # fmt: skip
    assert {pair.arm for pair in report.pairs} == set(ARMS)
    refused = {(c.arm, c.modality, c.harmful): c.refused.count for c in report.cells}
    assert refused["safety-prompt", "text", False] == 5
    assert refused["on", "text", False] == refused["other", "text", False] == 0
    assert len(report.newly_refused["safety-prompt"]) == 10
    assert report.newly_refused["on"] == []
    assert set(report.gates) == {"on", "other"}
    lines = (tmp_path / "steered" / SAMPLES_NAME).read_text("utf-8").split("\n")[:-1]
    results = [SampleResult.model_validate_json(line) for line in lines]
    assert [r.arm for r in results] == ["off", *ARMS] * len(SUITE)
    assert {r.arm for r in results if r.decision is not None} == {"on", "other"}


def test_an_attack_without_the_template_is_not_run_in_an_arm_that_acts_in_it(run):
    """It would leave the system prompt of such an arm out, and measure the reference again."""
    report, _ = run("safety-prompt", attacks=True)
    assert list(report.skipped) == ["templateless"]
    assert "safety-prompt" in report.skipped["templateless"]
    arms = {a.attack: {c.arm for c in a.cells} for a in report.attacks}
    assert arms["templateless"] == {"off", "on"}
    assert arms["multi-turn"] == {"off", "on", "safety-prompt"}


def test_a_report_says_the_same_of_an_arm_whatever_else_is_run(run, tmp_path):
    other = f"other={tmp_path / 'other'}"
    alone, _ = run(name="alone")
    both, _ = run(other, "safety-prompt", name="both")
    prompt, _ = run("safety-prompt", name="prompt")
    assert numbers(alone, "on") == numbers(both, "on") == numbers(prompt, "on")
    assert numbers(both, "safety-prompt") == numbers(prompt, "safety-prompt")
    assert alone.run != both.run != prompt.run


def test_digests_follow_the_directories(tmp_path):
    save_manifest(tmp_path / "other")
    word = f"other={tmp_path / 'other'}"
    before = arm_digests(["safety-prompt", word])
    assert before["safety-prompt"] == ""
    assert arm_digests([word])[word] == before[word]
    made_again = Manifest.read(tmp_path / "other").model_copy(update={"created": "2027-01-01"})
    (tmp_path / "other" / MANIFEST_NAME).write_text(made_again.text())
    assert arm_digests([word])[word] != before[word]
    for wrong in ("magic", f"other={tmp_path / 'nowhere'}"):
        with pytest.raises(ExportError):
            arm_digests([wrong])
