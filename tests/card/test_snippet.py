"""The card's Python, run as a reader would: from the card, beside the checkpoint, without us."""

import os
import re
import subprocess
import sys

import pytest

from mars_export.card.render import write_card
from mars_export.card.snippets import loading
from support import planted
from support.worded import export_worded


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """A random Gemma 3 with a real processor, steered by a made-up calibration."""
    return export_worded(tmp_path_factory.mktemp("snippet"), planted.processor(), origin=-1e6)[1]


def test_the_cards_python_runs_shows_steering_and_notices_when_it_is_off(steered):
    loading, checking = re.findall(
        r"```python\n(.*?)```", write_card(steered).read_text(), re.DOTALL
    )
    generate = re.search(r"^output = .*$", loading, re.MULTILINE)[0]
    blocked = "import sys\nsys.modules['mars_export'] = None"
    off = f"print('switched')\nmodel.steering.enabled = False\n{generate}"
    code = "\n".join([blocked, loading, checking, off, checking])
    done = subprocess.run(
        [sys.executable, "-W", "error::FutureWarning", "-c", code],
        cwd=steered.parent, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True, text=True,
    )  # fmt: skip
    before, switched, after = done.stdout.partition("switched")
    assert switched, done.stderr
    assert re.search(r"position=\d+, modality='image', gate=\d+\.\d+, strength=[1-9]", before)
    assert after.strip() == ""
    assert "AssertionError: steering is switched off" in done.stderr


def test_a_text_family_is_shown_text_only():
    code = loading("org/name", ["text"])
    compile(code, "card", "exec")
    assert "PIL" not in code
    assert '"image"' not in code


def test_what_the_template_is_to_be_told_stands_in_the_call():
    told = loading("here", ("text",), template_options={"enable_thinking": False})
    compile(told, "card", "exec")
    assert 'return_tensors="pt",\n    enable_thinking=False\n)' in told
