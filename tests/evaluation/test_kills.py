"""`kill -9` at any moment: the same command goes on, and the result is that of a whole run.

`KILLS=10 pytest tests/evaluation/test_kills.py` kills more often.
"""

import json
import os
import random
import time

from evaluation.fakes import SUITE, save_manifest, save_suite

from mars_export.common.names import REPORT_NAME, SAMPLES_NAME
from support import slow_evaluation

KILLS = int(os.environ.get("KILLS", "3"))


def written(directory):
    report = json.loads((directory / REPORT_NAME).read_text())
    del report["created"], report["seconds"]
    return (directory / SAMPLES_NAME).read_bytes(), report


def test_killed_runs_give_the_same_bytes(started, tmp_path):
    suite = save_suite(tmp_path / "suite", SUITE)
    save_suite(tmp_path / "other", [{**row, "id": f"other {row['id']}"} for row in SUITE])
    for name in ("whole", "killed"):
        save_manifest(tmp_path / name)
    slow_evaluation.run(tmp_path / "whole", suite)
    batches = sum(1 for _ in open(tmp_path / "whole" / SAMPLES_NAME)) // 6  # noqa: PTH123, SIM115
    source, reached = random.Random(1), []
    folder = tmp_path / "killed" / "evaluation"
    for kill in range(KILLS):
        process = started(slow_evaluation.run, tmp_path / "killed", suite, 0.02)
        goal = (kill + source.random()) * batches / KILLS
        while process.is_alive() and lines(folder) < goal:
            time.sleep(0.005)
        time.sleep(source.random() * 0.03)
        process.kill()
        process.join()
        reached.append(lines(folder))
    assert reached == sorted(reached), "no kill may cost a finished batch"
    assert not (folder / "report.json").exists(), "the last kill came too late"
    slow_evaluation.run(tmp_path / "killed", suite)
    assert written(tmp_path / "killed") == written(tmp_path / "whole")
    assert sorted(path.name for path in folder.iterdir()) == [
        "report.html", "report.json", "samples.jsonl",
    ]  # fmt: skip


def lines(folder):
    """Finished batches in the journal."""
    journal = next(folder.glob("*.partial.jsonl"), None)
    return journal.read_bytes().count(b"\n") if journal else 0
