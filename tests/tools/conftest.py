"""What pytest collects for the tables, by the recorder of outcomes; collected once."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="session")
def collected(shared):
    """Group -> family -> name of every marked test."""

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
