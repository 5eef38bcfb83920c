"""The example loads what passes and nothing else."""

import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.use("verify", family="gemma3")
EXAMPLE = Path(__file__).parents[2] / "examples" / "verify" / "load_verified.py"


def test_what_passes_is_loaded(steered, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(steered)])
    runpy.run_path(str(EXAMPLE))
    last = capsys.readouterr().out.splitlines()[-1]
    assert last == "loaded SteeredGemma3ForConditionalGeneration with steering on"


def test_what_does_not_pass_is_not_run(steered, monkeypatch):
    (steered / "modeling_steered.py").write_text(f"open({str(steered / 'ran')!r}, 'w')")
    monkeypatch.setattr(sys, "argv", [str(EXAMPLE), str(steered)])
    with pytest.raises(SystemExit, match="is not loaded"):
        runpy.run_path(str(EXAMPLE))
    assert not (steered / "ran").exists()
