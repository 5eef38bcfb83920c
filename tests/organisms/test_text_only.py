"""Text-only families, from calibration to card, on the language models of the organisms."""

import pytest
import torch
import transformers

from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import Report
from mars_export.evaluation.suite import read_suite
from mars_export.inputs.requests import collate
from support.language_model import TEXT_OF, language_model
from support.organisms import run_card
from support.steered import ROWS


@pytest.fixture(scope="module", params=TEXT_OF)
def made(request, tmp_path_factory, main_job):
    """Base and steered directory."""
    folder = tmp_path_factory.mktemp(request.param)
    base = language_model(request.param, folder / "base")
    options = ["--max-new-tokens", 24, "--no-controls", "--arm", "none", "--batch-size", ROWS]
    main_job("--model", base, "--output", "steered", *options, cwd=folder)
    return base, folder / "steered"


def test_the_main_job_steers_a_text_only_model(made):
    steered = made[1]
    assert verify_files(steered) == []
    manifest = Manifest.read(steered)
    assert set(manifest.calibration.source.modalities) == {"text"}
    assert manifest.base.pipeline_tag == "text-generation"
    report = Report.model_validate_json((steered / REPORT_NAME).read_bytes())
    assert report.self_check.active
    assert {c.modality for c in report.cells} == {"text"}
    rate = {(c.harmful, c.arm): c.refused.rate for c in report.cells}
    assert rate[True, "on"] >= max(0.95, rate[True, "off"])
    assert rate[False, "on"] <= 0.05
    card = (steered / "README.md").read_text("utf-8")
    assert "AutoModelForCausalLM" in card
    assert "**harmful text** ↑" in card
    assert not any(words in card for words in ("| harmful image", "neutral image", "from PIL"))


@pytest.mark.parametrize("made", ["qwen3"], indirect=True)
def test_the_cards_python_runs_where_the_package_is_unknown(made, tmp_path):
    run = run_card(made[1], tmp_path)
    assert run.returncode == 0, run.stderr
    assert "modality='text', gate=" in run.stdout


@torch.no_grad()
def test_off_is_the_base_and_on_pushes_harmful_requests(made):
    base, steered = made
    auto = transformers.AutoModelForCausalLM
    native = auto.from_pretrained(base).eval()
    model = auto.from_pretrained(steered, trust_remote_code=True).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(steered)
    suite = read_suite(base / "suite.jsonl")
    harmful = [s for s in suite.evaluation_samples(["text"]) if s.harmful][:4]
    batch = collate(tokenizer, [suite.request(sample) for sample in harmful])
    want = native(**batch).logits
    got = model(**batch).logits
    assert all(row[0].modality == "text" and row[0].gate > 0 for row in model.steering.last)
    assert not got[:, -1].equal(want[:, -1])
    model.steering.enabled = False
    assert model(**batch).logits.equal(want)
