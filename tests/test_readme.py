"""The README from top to bottom: its examples run in order, in one fresh directory, as copied."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")
BLOCK = re.compile(r"^```(bash|python)\n(.*?)^```\n(?:\n```text\n(.*?)^```\n)?", re.DOTALL | re.M)
NOT_HERE = {
    "python3 -m venv": "the quick start and the tests install; `quickstart` runs the first",
    "org/": "the Hub",
    "./model": "a model of the reader's",
}
"""Beginnings or parts of commands that are not run here, and why."""
SMALLER = {"mars-export attack": "--requests 1 --steps 1 --draws 1 --max-new-tokens 8"}
"""What is added to commands that would take too long."""


def examples():
    """Kind, code and printed output of every example that can be run, in order."""
    for kind, code, printed in BLOCK.findall(README):
        if kind == "python":
            yield kind, code, printed
            continue
        for line in code.splitlines():
            command = line.partition(" #")[0].strip()
            if command and not any(part in command for part in NOT_HERE):
                more = (words for name, words in SMALLER.items() if command.startswith(name))
                yield kind, " ".join([command, *more]), ""


@pytest.fixture
def checkout(quickstart, installed, tmp_path):
    """A directory with what a reader has after the quick start, and its environment."""
    shutil.copytree(quickstart / "steered", tmp_path / "steered")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    scripts = tmp_path / ".venv/bin"
    scripts.mkdir(parents=True)
    (scripts / "activate").write_text(f'PATH="{scripts}:$PATH"\n')
    command = scripts / "mars-export"
    command.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m mars_export "$@"\n')
    command.chmod(0o755)
    path = os.pathsep.join([str(scripts), os.environ["PATH"]])
    return tmp_path, {**os.environ, **installed, "PATH": path, "HF_HUB_OFFLINE": "1"}


def test_every_example_runs(checkout):
    folder, environment = checkout
    for kind, code, printed in examples():
        start = ["bash", "-euo", "pipefail"] if kind == "bash" else [sys.executable]
        done = subprocess.run(
            [*start, "-c", code], cwd=folder, env=environment, capture_output=True, text=True
        )
        assert done.returncode == 0, f"{code}\n{done.stdout}{done.stderr}"
        assert "Traceback" not in done.stderr, code
        if printed:
            assert done.stdout == printed, done.stderr
    assert (folder / "steered/evaluation/adaptive.json").is_file()
    assert "mine" in (folder / "steered/README.md").read_text("utf-8")


def test_nothing_is_left_out_that_could_be_run():
    commands = [code for kind, code, _ in examples() if kind == "bash"]
    names = {code.split()[1] for code in commands if code.startswith("mars-export ")}
    assert names >= {"ask", "evaluate", "attack", "card", "verify"}
    assert any(printed for kind, _, printed in examples() if kind == "python")
    for part in NOT_HERE:
        assert part in README, f"{part} need not be left out"
