"""What a run prints at its end."""

import json

from mars_export.cli.summary import print_results, print_summary
from mars_export.evaluation.report import undecided
from support import records


def test_a_run_ends_with_the_goals_that_it_missed(capsys, tmp_path):
    config = {"auto_map": {"AutoModelForImageTextToText": "modeling_steered.Model"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evaluation").mkdir()
    (tmp_path / "evaluation/report.json").write_text(records.report().model_dump_json())

    def ending(**changes):
        manifest = records.manifest(calibration=records.calibration(**changes))
        (tmp_path / "steering_manifest.json").write_text(manifest.model_dump_json())
        print_summary(tmp_path)
        return capsys.readouterr().out.rpartition("trust_remote_code=True)\n")[2].splitlines()

    assert ending() == []
    assert ending(missed=["Too much KL.", "Open gates."], findings=["Writing opens the gate."]) == [
        "",
        "The calibration missed 2 of its goals:",
        "- Too much KL.",
        "- Open gates.",
        "",
        "What the calibration found:",
        "- Writing opens the gate.",
    ]


def test_rates_with_their_intervals(capsys):
    print_results(records.report())
    out = capsys.readouterr().out
    assert "96.7% (91.7% to 98.7%)" in out
    assert "no headline" not in out


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
