"""What pytest collects for the tables, by the recorder of outcomes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.recording import RECORDER

ROOT = Path(__file__).parents[2]
CHOOSING = ("keyword", "markexpr", "deselect", "ignore", "ignore_glob", "lf", "stepwise")
"""Options that leave tests out."""


@pytest.fixture(scope="session")
def collected(shared, request):
    """Group -> family -> name of every marked test: of this session, if it runs them all."""
    config = request.config
    everything = [Path(place).resolve() for place in config.args] == [ROOT / "tests"]
    if everything and not any(getattr(config.option, name, None) for name in CHOOSING):
        return config.pluginmanager.get_plugin(RECORDER).results()

    def make(folder):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pytest",
                "--collect-only",
                "-q",
                "-m",
                "behavior or mode or use",
            ],
            cwd=ROOT,
            env={**os.environ, "MARS_RESULTS": str(folder / "results.json")},
            check=True,
            capture_output=True,
        )

    return json.loads((shared("collected", make) / "results.json").read_text("utf-8"))
