"""What a run calibrates and evaluates on."""

import json
import shutil

import pytest

from mars_export.evaluation.suite import SUITE_NAME
from mars_export.pipeline.preflight import describe, own_prompts, prepare
from mars_export.pipeline.settings import PromptSettings, Settings
from support.organisms import ORGANISMS


@pytest.fixture
def evaluation_only(tmp_path):
    """An organism whose suite has requests of the evaluation split alone."""
    folder = shutil.copytree(ORGANISMS / "gemma3", tmp_path / "base")
    lines = (folder / SUITE_NAME).read_text().splitlines()
    chosen = [line for line in lines if json.loads(line)["split"] == "evaluation"]
    (folder / SUITE_NAME).write_text("\n".join(chosen) + "\n")
    return folder


def test_an_organism_brings_prompts_and_requests():
    job = prepare(Settings(model="organism:gemma3"))
    assert job.own_suite
    assert job.prompts.harmful.name == f"{SUITE_NAME} (harmful)"


def test_without_calibration_text_the_packaged_prompts_are_taken(evaluation_only):
    job = prepare(Settings(model=str(evaluation_only)))
    assert not job.own_suite
    assert job.prompts.harmful.name == "mars-export/harmful.txt"
    assert job.suite.samples
    assert "prompts mars-export/harmful.txt and" in describe(job)
    both = own_prompts(PromptSettings(), [evaluation_only, ORGANISMS / "gemma3"])
    assert both.harmful.name == f"{SUITE_NAME} (harmful)"
