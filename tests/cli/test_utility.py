"""`mars-export utility` on logs that are there already."""

from pathlib import Path

from evaluation.fakes import save_manifest

LOGS = Path(__file__).parents[1] / "data" / "lmms"


def test_logs_are_compared_and_printed(mars, tmp_path):
    save_manifest(tmp_path / "steered")
    logs = ["--off", LOGS / "off", "--on", LOGS / "on"]
    done = mars("utility", "steered", "--task", "pictures", *logs)
    assert done.code == 0, done.errors
    for word in ("answered", "0.833", "refusals", "not shown"):
        assert word in done.out
    assert (tmp_path / "steered/evaluation/utility.json").is_file()


def test_both_logs_or_none(mars, tmp_path):
    done = mars("utility", tmp_path, "--task", "pictures", "--off", LOGS / "off")
    assert (done.code, done.errors) == (
        2, ["mars-export: error: --off and --on go together; give both or neither"],
    )  # fmt: skip
