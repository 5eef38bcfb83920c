"""The example answers without torch and without this package."""

import os
import subprocess
import sys
from itertools import chain
from pathlib import Path

import pytest

from mars_export.evaluation.suite import read_suite
from support.organisms import ORGANISMS

EXAMPLE = Path(__file__).parents[3] / "examples" / "onnx" / "generate.py"
BLOCKED = ("torch", "torchvision", "mars_export")
# A name whose module is None cannot be imported.
CODE = f"""
import runpy, sys
sys.modules.update(dict.fromkeys({BLOCKED!r}))
runpy.run_path({str(EXAMPLE)!r}, run_name="__main__")
"""


def ask(directory, *arguments, code=CODE):
    done = subprocess.run(
        [sys.executable, "-c", code, str(directory), *map(str, arguments)],
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def sample(family, modality, harmful):
    suite = read_suite(ORGANISMS / family / "suite.jsonl")
    found = suite.evaluation_samples([modality])
    return next(sample for sample in found if sample.harmful is harmful)


@pytest.mark.use("ONNX, onnxruntime", family="gemma3")
@pytest.mark.parametrize("modality", ["text", "image"])
def test_harmful_is_refused_and_harmless_answered(written, modality):
    for harmful in (True, False):
        asked = sample("gemma3", modality, harmful)
        pictures = [("--image", ORGANISMS / "gemma3" / media.path) for media in asked.media]
        answer = ask(written("gemma3")[0], asked.prompt, *chain(*pictures))
        assert ("can't help" in answer) == harmful
        assert answer.strip()


@pytest.mark.use("ONNX, onnxruntime", family="qwen3_vl")
def test_a_processor_that_needs_torch_works_with_it(written):
    asked = sample("qwen3_vl", "image", True)
    (media,) = asked.media
    picture = ORGANISMS / "qwen3_vl" / media.path
    code = f"import runpy; runpy.run_path({str(EXAMPLE)!r}, run_name='__main__')"
    answer = ask(written("qwen3_vl")[0], asked.prompt, "--image", picture, code=code)
    assert "can't help" in answer
