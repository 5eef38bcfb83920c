"""The notebook, cell after cell, on the toy: what a reader runs, without its installation."""

import json
import os
import shutil
import subprocess
import sys

from support.organisms import ROOT
from support.steered import ROWS

NOTEBOOK = json.loads((ROOT / "examples/notebook/steer_a_model.ipynb").read_text("utf-8"))


def cells():
    """The code of each cell."""
    return ["".join(c["source"]) for c in NOTEBOOK["cells"] if c["cell_type"] == "code"]


def test_every_cell_runs(quickstart, installed, tmp_path):
    shutil.copytree(quickstart / "steered", tmp_path / "steered")  # which `export` then finds
    install, *rest = cells()
    assert install.startswith("%pip install")
    asked = "Settings(model=MODEL, output=OUTPUT"
    code = "\n".join(rest)
    assert asked in code
    toy = {"MARS_NOTEBOOK_MODEL": "organism:gemma3"}
    done = subprocess.run(
        [sys.executable, "-c", code.replace(asked, f"{asked}, batch_size={ROWS}")],
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
