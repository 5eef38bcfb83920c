"""Outcomes of marked tests end up in the results, whatever folder they are in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.recording import FAILED, NOT_RUN, PASSED

TESTS = Path(__file__).parent.parent
MARKED = """
import pytest
from support.recording import does_not_apply

families = pytest.mark.parametrize("pair", ["a", "b"])

@pytest.mark.behavior
@families
@pytest.mark.parametrize("variant", [1, 2])
def test_the_worst_counts(pair, variant):
    assert (pair, variant) != ("b", 1)

@pytest.mark.behavior
@families
def test_why(pair, natively_refused):
    does_not_apply("text only") if pair == "a" else natively_refused("no clips")

@pytest.mark.mode("sampling")
@families
def test_sampling(pair):
    pass

@pytest.mark.mode("serving", family="c")
def test_serving(raises_clearly):
    raises_clearly("no server")

@pytest.mark.use("swimming", family="c")
def test_pond():
    pass

@pytest.mark.mode("flying")
@families
def test_flying(pair):
    pytest.skip("no wings")

def test_unmarked():
    pass
"""


def run(folder, source, *arguments):
    (folder / "test_marked.py").write_text(source)
    target = folder / "results.json"
    paths = [str(TESTS), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(paths),
        "MARS_RESULTS": str(target),
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "support.recording", *arguments]
    done = subprocess.run(
        [*command, "test_marked.py"], cwd=folder, env=environment, capture_output=True, text=True
    )
    return done, json.loads(target.read_text()) if target.exists() else None


@pytest.mark.parametrize("processes", [[], ["-n", "2"]], ids=["alone", "spread"])
def test_marked_tests_are_recorded_with_their_worst_outcome(tmp_path, processes):
    done, told = run(tmp_path, MARKED, *processes)
    assert "1 failed, 9 passed, 3 skipped" in done.stdout
    assert told["families"] == {
        "a": {"the worst counts": PASSED, "why": "does not apply: text only"},
        "b": {"the worst counts": FAILED, "why": "refused natively: no clips"},
    }
    assert told["modes"] == {
        "a": {"sampling": PASSED, "flying": "not run: no wings"},
        "b": {"sampling": PASSED, "flying": "not run: no wings"},
        "c": {"serving": "raises: no server"},
    }
    assert told["uses"] == {"c": {"swimming": PASSED}}
    assert set(told["versions"]) >= {"torch", "transformers"}


@pytest.mark.parametrize(
    "arguments", [["--collect-only"], ["-x", "-k", "worst"], ["-x", "-k", "worst", "-n", "1"]]
)
def test_what_did_not_run_is_said_to(tmp_path, arguments):
    """Stopped after the first failure, the second variant of `b` is still to come."""
    _, told = run(tmp_path, MARKED.replace('("b", 1)', '("a", 1)'), *arguments)
    assert told["families"]["b"]["the worst counts"] == NOT_RUN


def test_marks_without_a_family_are_an_error(tmp_path):
    source = "import pytest\n@pytest.mark.mode('flying')\ndef test_it():\n    pass\n"
    done, _ = run(tmp_path, source)
    assert done.returncode != 0
    assert "needs family='...'" in done.stderr + done.stdout
