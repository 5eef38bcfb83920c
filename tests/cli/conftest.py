"""Runs the command line in this process, in an empty directory, without the user's settings."""

import json
import os
from types import SimpleNamespace

import numpy as np
import pytest
from safetensors.numpy import save_file

from mars_export.cli.main import main


@pytest.fixture(autouse=True)
def empty_place(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("MARS_"):
            monkeypatch.delenv(name)


@pytest.fixture
def mars(capsys):
    """Call with arguments; returns exit code, standard output and the lines of standard error."""

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        return SimpleNamespace(code=stopped.value.code, out=out, errors=err.splitlines())

    return run


@pytest.fixture
def base(tmp_path):
    """What looks like a licensed Gemma 3 until its processor is loaded."""
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps({"model_type": "gemma3"}))
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    save_file({"x": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder
