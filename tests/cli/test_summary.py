"""What a run prints at its end."""

import json

import pytest

from mars_export.cli.summary import print_results, print_summary
from mars_export.evaluation.report import BrokenPair, Overlap, undecided
from support import records


@pytest.fixture
def steered(tmp_path):
    """Writes a report and a manifest and gives their directory."""

    def make(report=None, **changes):
        (tmp_path / "evaluation").mkdir(exist_ok=True)
        text = (report or records.report()).model_dump_json()
        (tmp_path / "evaluation/report.json").write_text(text)
        manifest = records.manifest(calibration=records.calibration(**changes))
        (tmp_path / "steering_manifest.json").write_text(manifest.model_dump_json())
        return tmp_path

    return make


def ending(capsys, directory, **options):
    print_summary(directory, **options)
    return capsys.readouterr()


def test_a_run_ends_with_its_path_and_people_read_the_rest_beside_it(capsys, steered):
    directory = steered()
    out, err = ending(capsys, directory)
    assert out == f"{directory}\n"
    lines = err.splitlines()
    assert f"model card:  {directory}/README.md" in lines
    assert f"report:      {directory}/evaluation/report.json" in lines
    assert lines[lines.index("next:") + 1 :] == [
        f'  mars-export ask {directory} "a question" --image picture.png',
        f"  mars-export verify {directory}",
        f"  mars-export push {directory} ORG/NAME",
    ]
    assert ending(capsys, directory, quiet=True) == (f"{directory}\n", "")


def test_programs_get_json_alone(capsys, steered):
    directory = steered(missed=["Too much KL."])
    told = json.loads(ending(capsys, directory, as_json=True, quiet=True).out)
    assert told["directory"] == str(directory)
    assert told["card"] == f"{directory}/README.md"
    assert (told["missed"], told["worse"]) == (["Too much KL."], [])


def test_a_run_ends_with_the_goals_that_it_missed(capsys, steered):
    assert "missed" not in ending(capsys, steered()).err
    record = {"missed": ["Too much KL.", "Open gates."], "findings": ["Writing opens the gate."]}
    lines = ending(capsys, steered(**record)).err.splitlines()
    start = lines.index("The calibration missed 2 of its goals:")
    assert lines[start : start + 6] == [
        "The calibration missed 2 of its goals:",
        "- Too much KL.",
        "- Open gates.",
        "",
        "What the calibration found:",
        "- Writing opens the gate.",
    ]


def test_a_run_warns_of_what_makes_its_numbers_weak(capsys, steered):
    overlap = Overlap(n=264, exact=2, near=21, threshold=0.8)
    made = records.report().model_copy(update={"overlap": overlap, "uncalibrated": {"on": 3}})
    warned = [
        line for line in ending(capsys, steered(made)).err.splitlines() if line[:8] == "warning:"
    ]
    assert "warning: 21 of 264 requests nearly repeat a prompt of the calibration." in warned
    assert "warning: 3 requests lie outside what was calibrated." in warned
    assert any("Controls were not run" in line for line in warned)
    assert not any("*" in line or "`" in line for line in warned)


def test_controls_and_attacks_have_a_line_for_each_label(capsys):
    attack = records.variant("prefill", {(True, "text"): (100, 0, 20, 0)}, kind="attack")
    made = records.report(variants=[records.variant("sampling"), attack])
    gone = {"frames": "it takes no video", "silence": "no audio", "clips": "it takes no video"}
    print_results(made.model_copy(update={"skipped": gone}))
    out = capsys.readouterr().out
    assert "sampling (control)" in out
    (line,) = [line for line in out.splitlines() if "prefill (attack)" in line]
    assert "120/120" in line
    assert "100/120" in line
    assert "not run: frames, clips: it takes no video\nnot run: silence: no audio\n" in out


def test_rates_with_their_intervals(capsys):
    print_results(records.report())
    out = capsys.readouterr().out
    assert "96.7% (91.7% to 99.1%)" in out
    assert "no headline" not in out


def test_harm_that_is_shown_is_a_line(capsys):
    outcomes = {(True, "text"): (100, 2, 0, 18), (False, "image"): (0, 7, 0, 33)}
    prefill = records.variant("prefill", {(True, "text"): (100, 0, 20, 0)})
    print_results(records.report(outcomes, variants=[prefill]))
    lines = [x for x in capsys.readouterr().out.splitlines() if x.startswith("worse")]
    assert [line.partition(",")[0] for line in lines] == [
        "worse with on: harmless image refused more", "worse with on: harmful text",
    ]  # fmt: skip
    assert lines[1].startswith("worse with on: harmful text, prefill refused less, -16.7%")


def test_answers_that_break_are_a_line(capsys):
    broken = BrokenPair(
        arm="on", modality="image", harmful=False, n=120, clusters=60, difference=0.25, low=0.1,
        high=0.4, p_value=0.001, harm="shown", worse=30, better=0, p_harm=0.0005, testable=True,
        newly_broken=30, no_longer_broken=0,
    )  # fmt: skip
    print_results(records.report().model_copy(update={"broken_pairs": [broken]}))
    line = "worse with on: harmless image more broken answers, +25.0% (+10.0% to +40.0%)"
    assert line in capsys.readouterr().out.splitlines()


def test_every_arm_has_a_column(capsys):
    print_results(records.report(others={"safety-prompt": {(True, "text"): (60, 0, 60, 0)}}))
    header = capsys.readouterr().out.splitlines()[2]
    assert [word for word in header.split() if word.isascii()] == [
        "requests",
        "n",
        "off",
        "on",
        "safety-prompt",
    ]


def test_many_arms_have_a_line_each_and_say_what_they_were_fitted_to(capsys):
    others = {f"arm{i}": {(True, "text"): (60, 0, 60, 0)} for i in range(3)}
    report = records.report(others=others)
    fitted = report.arms[-1].model_copy(update={"detail": "layer 3"})
    print_results(report.model_copy(update={"arms": [*report.arms[:-1], fitted]}))
    lines = capsys.readouterr().out.splitlines()
    (line,) = [line for line in lines if line.startswith("│ arm1")]
    assert "50.0%" in line
    assert "arm2: layer 3" in lines


def test_counts_and_the_reason_when_too_much_is_unknown(capsys):
    report = records.report(unknown=3)
    print_results(report.model_copy(update={"no_headline": undecided(report.cells)}))
    out = capsys.readouterr().out
    assert "%" not in out
    assert "(3 unknown)" in out
    assert "no headline number: The judge could not decide" in out


def test_one_in_a_hundred_may_be_unknown():
    outcomes = {(True, "text"): (50, 30, 10, 110)}
    for unknown, reason in ((2, None), (3, "3 of 200 harmful text (steering on)")):
        found = undecided(records.report(outcomes, unknown=unknown).cells)
        assert found is None if reason is None else reason in found
