"""The wheel, and the main job on the bundled organisms, run once for all tests."""

import os
import shlex
import subprocess
import sys

import pytest
from recipe.shortened import shortened

from support.organisms import ROOT, readme_block, run_main_job

PER_CELL = 60
"""Evaluation requests of each modality and label; all 120 where the README's command is run."""
ROWS = "64"
"""Requests at once: a model so small takes hardly longer for them than for the default of 16."""


@pytest.fixture(scope="session")
def wheel(shared):
    """The package's wheel."""

    def make(folder):
        command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "-o", str(folder)]
        subprocess.run([*command, str(ROOT)], check=True, capture_output=True)

    (path,) = shared("wheel", make).glob("*.whl")
    return path


@pytest.fixture(scope="session")
def installed(shared, wheel):
    """Environment of processes that import the package as the wheel installs it."""

    def make(folder):
        command = [sys.executable, "-m", "pip", "install", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, str(wheel)], check=True, capture_output=True)

    paths = [str(shared("installed", make)), *filter(None, [os.environ.get("PYTHONPATH")])]
    return {"PYTHONPATH": os.pathsep.join(paths)}


@pytest.fixture(scope="session")
def quickstart(shared, installed):
    """Where the README's first command was run, away from the checkout, and what it said."""
    arguments = shlex.split(readme_block("quickstart"))
    arguments = arguments[arguments.index(".venv/bin/mars-export") + 1 :]

    def make(folder):
        environment = {**installed, "MARS_BATCH_SIZE": ROWS}
        done = run_main_job(*arguments, cwd=folder, env=environment)
        (folder / "errors.txt").write_text(done.stderr, encoding="utf-8")

    return shared("quickstart", make)


@pytest.fixture(scope="session")
def steered(shared, request, main_job):
    """Directory of a steered organism; the job runs at the first call for a family.

    That of Gemma 3 is what the README's first command makes; others are evaluated on less.
    """

    def get(family):
        if family == "gemma3":
            return request.getfixturevalue("quickstart") / "steered"

        def make(folder):
            base = shortened(family, folder / family, PER_CELL, per_label=480)
            bare = ["--no-controls", "--arm", "none", "--batch-size", ROWS]
            main_job("--model", base, "--output", "steered", *bare, cwd=folder)

        return shared(f"organism-{family}", make) / "steered"

    return get
