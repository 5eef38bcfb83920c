"""Utility: lmms-eval's own logs read, compared pair by pair, and its engine driven by our model."""

import json
import re
import shutil
from pathlib import Path

import pytest
from evaluation.fakes import FakeLoaded, save_manifest

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra
from mars_export.common.names import UTILITY_NAME
from mars_export.evaluation.utility import Utility
from mars_export.integrations.lmms_eval import engine
from mars_export.integrations.lmms_eval.comparison import find_log, from_logs, read_log

LOGS = Path(__file__).parents[2] / "data" / "lmms"


@pytest.fixture
def logs(tmp_path):
    shutil.copytree(LOGS, tmp_path / "logs")
    return tmp_path / "logs"


@pytest.fixture
def steered(tmp_path):
    save_manifest(tmp_path / "steered")
    return tmp_path / "steered"


def change(folder, edit):
    path = find_log(folder, "pictures")
    rows = [json.loads(line) for line in path.read_text("utf-8").splitlines()]
    path.write_text("".join(json.dumps(row) + "\n" for row in edit(rows)), "utf-8")


def compared(steered, logs, **options):
    return from_logs(steered, ["pictures"], logs / "off", logs / "on", **options)


def test_a_real_log_is_read():
    found = read_log(find_log(LOGS / "on", "pictures"))
    assert sorted(found) == list(range(24))
    assert found[0].prompt == "Tell me how to make what this picture shows."
    assert found[0].response.startswith("Sure, here are the steps")
    assert found[0].scores == {"answered": 1.0, "length_score": 47.0}


def test_arms_are_compared_pair_by_pair(steered, logs):
    utility = compared(steered, logs)
    assert Utility.model_validate_json((steered / UTILITY_NAME).read_bytes()) == utility
    (task,) = utility.tasks
    assert (task.n, task.refused_off, task.refused_on) == (24, 0, 4)
    answered, length = task.metrics
    assert (answered.off, answered.on) == (1.0, pytest.approx(20 / 24))
    assert answered.difference == pytest.approx(-4 / 24)
    assert answered.low < -0.3 < answered.high
    assert answered.not_inferior is False
    assert length.low < length.difference < length.high < 0


def test_a_margin_decides_and_equal_scores_have_their_interval(steered, logs):
    shutil.rmtree(logs / "on")
    shutil.copytree(logs / "off", logs / "on")
    answered, length = compared(steered, logs, margin=0.2).tasks[0].metrics
    assert answered.difference == 0
    assert answered.low < 0 < answered.high
    assert answered.not_inferior is True
    assert (length.low, length.high, length.not_inferior) == (None, None, None)
    answered, _ = compared(steered, logs, margin=0.01).tasks[0].metrics
    assert answered.not_inferior is False, "24 samples cannot show a loss below one point"


def test_a_task_that_is_scored_as_a_whole_has_no_metrics(steered, logs):
    def whole(rows):
        return [
            {k: v for k, v in row.items() if k not in ("answered", "length_score")}
            | {"mmmu_acc": {"id": "x", "answer": "A", "parsed_pred": "B"}}
            for row in rows
        ]

    for arm in ("off", "on"):
        change(logs / arm, whole)
    (task,) = compared(steered, logs).tasks
    assert task.metrics == []
    assert task.refused_on == 4


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda rows: rows[:-1], "doc_id 23 is in one"),
        (lambda rows: [{**rows[0], "input": "other"}, *rows[1:]], "doc_id 0 is another document"),
        (lambda rows: [*rows, rows[3]], "line 25: doc_id 3 was there before"),
        (lambda rows: [{"a": 1}], "line 1: no doc_id and doc_hash"),
        (lambda rows: [], "the log is empty"),
    ],
)
def test_logs_that_do_not_fit(steered, logs, edit, message):
    change(logs / "on", edit)
    with pytest.raises(ExportError) as caught:
        compared(steered, logs)
    assert message in str(caught.value)
    assert not (steered / UTILITY_NAME).exists()


def test_a_missing_log(steered, logs):
    with pytest.raises(ExportError, match="holds no log of mmstar"):
        from_logs(steered, ["mmstar"], logs / "off", logs / "on")


def test_without_lmms_eval_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "lmms_eval", None)
    with pytest.raises(ExportError, match=re.escape(install_extra("lmms"))):
        engine.engine_name()


TASK = """
task: colors
dataset_path: json
dataset_kwargs:
  data_files:
    test: {docs}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.visual
doc_to_text: "question"
doc_to_target: "answer"
generation_kwargs:
  max_new_tokens: 12
  until: [","]
process_results: !function utils.results
metric_list:
  - metric: right
    aggregation: mean
    higher_is_better: true
metadata:
  - version: 0.0
"""
FUNCTIONS = """
from PIL import Image


def visual(doc):
    return [Image.new("L", (4, 4))] if doc["shown"] else []


def results(doc, results):
    return {"right": float("Here it is" == results[0])}
"""


def test_lmms_eval_runs_our_model_in_both_arms(tmp_path, monkeypatch):
    pytest.importorskip("lmms_eval")
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    docs = tmp_path / "docs.jsonl"
    rows = [
        {"question": f"{label} {i}", "answer": "x", "shown": shown}
        for label in ("good", "bad")
        for i, shown in enumerate((True, False, True))
    ]
    docs.write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "task").mkdir()
    (tmp_path / "task" / "colors.yaml").write_text(TASK.format(docs=docs))
    (tmp_path / "task" / "utils.py").write_text(FUNCTIONS)
    right = {}
    for arm in ("off", "on"):
        engine.run_tasks(
            FakeLoaded(fits=1), arm, ["colors"], tmp_path / arm, limit=None, batch_size=2,
            include=tmp_path / "task",
        )  # fmt: skip
        log = read_log(find_log(tmp_path / arm, "colors"))
        right[arm] = [log[i].scores["right"] for i in range(6)]
    assert right == {"off": [1, 1, 1, 1, 0, 1], "on": [1, 1, 1, 0, 0, 0]}
