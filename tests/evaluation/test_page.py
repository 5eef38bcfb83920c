"""`evaluation/report.html`: whatever is written in it is text, and it loads nothing."""

import base64
import hashlib
import json
import re
from time import perf_counter
from types import SimpleNamespace

import pytest
from hypothesis import given

from mars_export.common.names import EVALUATION, PAGE_FILE
from mars_export.evaluation.page import report_page
from mars_export.evaluation.page.plots import gate_rows, rate_rows
from mars_export.evaluation.page.rows import rows
from mars_export.evaluation.report import SampleResult
from mars_export.hub.readiness import is_published
from mars_export.methods.base import Decision
from support.pages import NASTY, Read
from support.records import manifest, report

CALIBRATION = manifest().calibration


def result(arm="on", **changes):
    values = {"id": "a", "modality": "image", "harmful": True, "verdict": "answer", "response": "b"}
    return SampleResult(**{**values, "arm": arm, **changes})


def page(results, prompts=None):
    return report_page(report(), results, CALIBRATION, prompts or {})


@given(NASTY, NASTY, NASTY)
def test_answers_are_data_and_come_back_whole(prompt, answer, category):
    found = Read(page([result(response=answer, category=category)], {"a": prompt}))
    assert [tag for tag, _ in found.tags] == [tag for tag, _ in Read(page([])).tags]
    (row,) = json.loads(found.data)["rows"]
    assert (row["prompt"], row["answers"]["on"]["text"]) == (prompt, answer)
    assert row["category"] == category


def test_names_in_the_heading_are_text():
    odd = report().model_copy(update={"judge": "<script>alert(1)</script>"})
    assert "<script>alert(1)" not in report_page(odd, [], CALIBRATION, {})


def test_it_loads_nothing_and_runs_its_own_script_alone():
    html = page([result()])
    found = Read(html)
    assert not any({"src", "href"} & attrs.keys() for _, attrs in found.tags)
    assert "http://" not in html.replace("http-equiv", "")
    assert "https://" not in html
    (policy,) = [a["content"] for _, a in found.tags if a.get("http-equiv")]
    (script,) = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert "default-src 'none'" in policy
    assert "innerHTML" not in script


def test_a_row_holds_every_arm_and_what_steering_did():
    record = CALIBRATION.record
    decision = Decision(active=True, gate=0.5, strength=1.0, modality="image")
    log = [result("off"), result("on", decision=decision, push=0.25, verdict="refusal")]
    (row,) = rows(log, CALIBRATION, {})
    width = (record.harmful["image"] - record.origin["image"]) / record.separation
    assert (row["gate"], row["push"]) == (0.5, 0.25)
    assert row["margin"] == pytest.approx(0.5 * width, abs=1e-3)
    assert {arm: said["verdict"] for arm, said in row["answers"].items()} == {
        "off": "answer", "on": "refusal",
    }  # fmt: skip


def test_another_method_has_no_margin():
    other = SimpleNamespace(record=object())
    decision = Decision(active=True, gate=0.5, modality="image")
    (row,) = rows([result(decision=decision)], other, {})
    assert (row["gate"], row["margin"]) == (0.5, None)


def test_plots_hold_every_request_of_a_kind():
    told = report()
    kinds = {row.name for row in rate_rows(told)}
    assert kinds == {
        f"{k} {c.modality}"
        for c in told.cells
        for k in ["harmless", "harmful"]
        if (k == "harmful") == c.harmful
    }
    gates = told.model_copy(update={"gates": {"on": {"harmful text": [0.0, 0.5, 1.2, 1.2]}}})
    (row,) = gate_rows(gates)
    assert row.open == "3 of 4 open"
    assert sum(int(bar.title.split()[0]) for bar in row.bars) == 4
    assert all(0 <= bar.x < 100 and 0 < bar.height <= 100 for bar in row.bars)


def test_thousands_of_rows_are_written_in_a_moment():
    log = [result(arm, id=f"r{i}") for i in range(5000) for arm in ("off", "on")]
    start = perf_counter()
    html = page(log)
    assert perf_counter() - start < 30
    assert len(json.loads(Read(html).data)["rows"]) == 5000


def test_it_stays_at_home():
    assert not is_published(f"{EVALUATION}/{PAGE_FILE}")
    assert not is_published(f"{EVALUATION}/mine-1/{PAGE_FILE}")
