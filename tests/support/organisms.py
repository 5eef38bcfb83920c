"""The bundled organisms, and the command line run on them."""

import os
import subprocess
import sys
from pathlib import Path

ORGANISMS = Path(__file__).parents[2] / "examples" / "organisms"
FAMILIES = ("gemma3", "qwen3_vl")


def run_main_job(*arguments, cwd, check=True):
    """Run `mars-export` as a user does, in a process of its own."""
    code = "from mars_export.cli.main import main; main()"
    done = subprocess.run(
        [sys.executable, "-c", code, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "HF_HUB_OFFLINE": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert not check or done.returncode == 0, done.stdout + done.stderr
    return done
