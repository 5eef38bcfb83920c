"""Any number of arms against one reference."""

from types import SimpleNamespace

import pytest
from evaluation.fakes import SUITE, FakeLoaded, save_manifest, save_suite
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.names import SAMPLES_NAME
from mars_export.evaluation import aggregate, ready
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation.arms import arm_digests, open_arms
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SampleResult, SuiteSource
from mars_export.evaluation.suite import read_suite
from mars_export.methods.base import Method

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

    def run(*arms, name="steered", attacks=False, controls=False, **breaks):
        broken.update(breaks)
        save_manifest(tmp_path / name)
        options = EvaluationOptions(
            batch_size=4, device="cpu", controls=controls, attacks=attacks, arms=arms
        )
        return runner.evaluate(tmp_path / name, suite, options), loads

    broken = {}
    monkeypatch.setattr(ready, "load_calibrated", load)
    return run


def numbers(report, arm):
    """What a report says of one arm."""
    return {
        "cells": [cell for cell in report.cells if cell.arm == arm],
        "pairs": [pair for pair in report.pairs if pair.arm == arm],
        **{
            name: getattr(report, name).get(arm)
            for name in ("regressions", "newly_refused", "gates")
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


def test_the_safety_prompt_is_an_arm_unless_it_is_left_out(run, tmp_path):
    other = f"other={tmp_path / 'other'}"
    save_manifest(tmp_path / "steered")
    for words, expected, optional in (
        ([], ["safety-prompt"], True),
        (["none"], [], False),
        ([other], ["safety-prompt", "other"], True),
        ([other, "none"], ["other"], False),
        (["safety-prompt", other], ["safety-prompt", "other"], False),
        ([f"safety-prompt={tmp_path / 'other'}"], ["safety-prompt"], False),
    ):
        arms = open_arms(tmp_path / "steered", words)
        assert [arm.name for arm in arms] == ["off", "on", *expected]
        assert any(arm.optional for arm in arms) == optional
    report, _ = run()
    assert report.arms[2].name == "safety-prompt"


def test_controls_are_not_for_an_arm_that_nobody_named(run):
    unnamed, _ = run(name="unnamed", controls=True)
    named, _ = run("safety-prompt", name="named", controls=True)
    arms = [
        {cell.arm for variant in report.variants for cell in variant.cells}
        for report in (unnamed, named)
    ]
    assert arms == [{"off", "on"}, {"off", "on", "safety-prompt"}]
    assert numbers(unnamed, "safety-prompt")["cells"] == numbers(named, "safety-prompt")["cells"]
    assert unnamed.run != named.run


def test_attacks_are_run_in_every_arm(run):
    report, _ = run("safety-prompt", attacks=True)
    assert set(report.skipped) == {"dose"}  # goes with the controls
    assert {c.arm for v in report.variants for c in v.cells} == {"off", "on", "safety-prompt"}


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


VERDICTS = st.sampled_from(["refusal", "rebuttal", "answer", "degenerate", "unknown"])
REQUESTS = st.lists(
    st.tuples(
        st.sampled_from(["text", "image", "video"]), st.booleans(), st.sampled_from(["a", "b"]),
        st.sampled_from(["", "prefill"]), st.tuples(*[VERDICTS] * 4),
    ),
    min_size=1, max_size=6,
)  # fmt: skip


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(REQUESTS, st.permutations(ARMS), st.integers(1, 3))
def test_numbers_of_an_arm_depend_on_no_other_arm(requests, order, count):
    results = [
        [
            SampleResult(
                id=str(i), modality=modality, harmful=harmful, arm=arm, verdict=verdict,
                response="", suite="s", category=category, variant=variant,
                group=f"of {i}" if variant else "",
            )
            for arm, verdict in zip(("off", *ARMS), verdicts, strict=True)
        ]
        for i, (modality, harmful, category, variant, verdicts) in enumerate(requests)
    ]  # fmt: skip
    everything = [result for row in results for result in row]
    chosen = ("off", *order[:count])
    part = [r for row in results for r in sorted(row, key=lambda r: place(chosen, r.arm))]
    part = [result for result in part if result.arm in chosen]
    for arm in chosen:
        assert aggregated(part, arm) == aggregated(everything, arm)


def place(order, arm):
    return order.index(arm) if arm in order else len(order)


def aggregated(results, arm):
    """All numbers of one arm that responses lead to."""
    report = aggregate.tables(results, [SuiteSource(name="s", sha256="", samples=0)])
    parts = [SimpleNamespace(**report), *report["suites"], *report["variants"]]
    parts += [category for part in parts[1:] for category in part.categories]
    names = ("cells", "pairs", "harm_pairs", "broken_pairs", "cut_pairs", "pooled")
    tables = [getattr(part, name) for part in parts for name in names]
    lists = [report["regressions"], report["newly_refused"]]
    lists += [ids for v in report["variants"] for ids in (v.regressions, v.newly_refused)]
    rows = [[row for row in table if row.arm == arm] for table in tables]
    return rows, [by_arm.get(arm) for by_arm in lists]


@pytest.mark.parametrize(
    ("arms", "message"),
    [
        (
            ["safety-promt"],
            r"give a baseline \(safety-prompt, addition, .*\), or NAME=DIR",
        ),
        (["mars"], "there is no such arm"),
        (["=x"], "there is no such arm"),
        (["x=nowhere"], "there is no directory nowhere"),
        (["on=other"], "an arm is called on already"),
        (["off=other"], "an arm is called off already"),
        (["on"], "there is no such arm"),
        (["addition"], "--arm addition: it is fitted on the prompts that .* are not at hand"),
        (["cast", "cast"], "an arm is called cast already"),
        (["safety-prompt", "safety-prompt"], "an arm is called safety-prompt already"),
        (["x=stranger"], "--arm x=.*stranger: its base is another, not the same weights of"),
        (["x=textual"], "--arm x: .*textual was not calibrated for image"),
    ],
)
def test_an_arm_that_cannot_be_is_one_line_before_anything_is_loaded(
    run, tmp_path, monkeypatch, arms, message
):
    monkeypatch.chdir(tmp_path)
    manifest = save_manifest(tmp_path / "stranger")
    base = manifest.base.model_copy(update={"name": "another"})
    stranger = manifest.model_copy(update={"base": base}).model_dump_json()
    (tmp_path / "stranger" / "steering_manifest.json").write_text(stranger)
    save_manifest(tmp_path / "textual", shift={"text": 0.0}, stimuli={})
    monkeypatch.setattr(ready, "load_calibrated", None)
    with pytest.raises(ExportError, match=message) as caught:
        run(*arms)
    assert "\n" not in str(caught.value)


def test_another_directory_must_steer(run, tmp_path):
    with pytest.raises(ExportError, match=r"--arm other: .*/other does not steer: Steering of"):
        run(f"other={tmp_path / 'other'}", other="silent")


def test_without_active_steering_the_other_arms_are_still_measured(run):
    report, _ = run("safety-prompt", steered="silent")
    assert not report.self_check.active
    assert [arm.name for arm in report.arms] == ["off", "safety-prompt"]
    assert {pair.arm for pair in report.pairs} == {"safety-prompt"}


def test_a_template_that_drops_the_prompt_stops_the_arm_that_is_named(run, monkeypatch):
    monkeypatch.setattr(
        "evaluation.fakes.Template.apply_chat_template",
        lambda _self, turns, **_: str([t for t in turns if t["role"] != "system"]),
    )
    with pytest.raises(ExportError, match="--arm safety-prompt: the chat template leaves it out"):
        run("safety-prompt")
    report, _ = run()
    assert [arm.name for arm in report.arms] == ["off", "on"]
    assert report.skipped["safety-prompt"] == "the chat template leaves it out"


def test_a_method_may_leave_a_request_alone(run, monkeypatch, tmp_path):
    class Lapsing(Prompted):
        def answer(self, inputs, max_new_tokens, **options):
            texts = any("text" in request.prompt for request in inputs["requests"])
            self.broken = "silent" if texts else ""
            return super().answer(inputs, max_new_tokens, **options)

    monkeypatch.setattr(ready, "load_calibrated", lambda *_: Lapsing())
    with pytest.raises(ExportError, match="text-3 was not steered"):
        run()
    monkeypatch.setattr(Method, "must_act", lambda _self, modality: modality == "image")
    report, _ = run(name="lenient")
    assert set(report.gates["on"]) == {"harmful image", "harmless image"}
    assert {pair.modality for pair in report.pairs} == {"text", "image"}
