"""The notebook, cell after cell, on the toy: what a reader runs, without its installation."""

import json
import os
import subprocess
import sys

from support.organisms import ROOT
from support.steered import ROWS

NOTEBOOK = json.loads((ROOT / "examples/notebook/steer_a_model.ipynb").read_text("utf-8"))


def cells():
    """The code of each cell."""
    return ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]


def test_every_cell_runs(quickstart, installed, tmp_path):
    (tmp_path / "steered").symlink_to(quickstart / "steered")
    install, *rest = cells()
    assert install.startswith("%pip install")
    toy = {"MARS_NOTEBOOK_MODEL": "organism:gemma3", "MARS_BATCH_SIZE": ROWS}
    done = subprocess.run(
        [sys.executable, "-c", "\n".join(rest)],
        cwd=tmp_path,
        env={**os.environ, **installed, **toy, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    printed = done.stdout.splitlines()
    assert [line.split()[:2] for line in printed[:4]] == [
        ["harmful", "text"], ["harmless", "text"], ["harmful", "image"], ["harmless", "image"],
    ]  # fmt: skip
    assert printed[-1] == "True"


def test_it_holds_no_outputs():
    assert all(not c.get("outputs") for c in NOTEBOOK["cells"])
    assert all(c.get("execution_count") is None for c in NOTEBOOK["cells"])
