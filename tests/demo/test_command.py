"""`mars-export demo`: what is wrong is said in one line, before anything is loaded or written."""

import subprocess
import sys

import pytest

from mars_export.cli.main import main


@pytest.fixture
def fails(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)

    def run(*arguments):
        with pytest.raises(SystemExit) as stopped:
            main([str(argument) for argument in arguments])
        out, err = capsys.readouterr()
        assert (stopped.value.code, out, len(err.splitlines())) == (2, "", 1)
        return err

    return run


def test_bad_input_is_one_line(fails, checkpoint):
    assert "is not a steered checkpoint" in fails("demo", checkpoint.parent / "base")
    assert "there is no directory nowhere" in fails("demo", "nowhere")
    assert "--push goes with --space" in fails("demo", checkpoint, "--push")
    assert "--output goes with --space" in fails("demo", checkpoint, "--output", "x")
    assert "--port" in fails("demo", checkpoint, "--port", "70000")
    assert "--dtype" in fails("demo", checkpoint, "--dtype", "int3")


def test_a_missing_extra_says_how_to_install_it(fails, checkpoint, monkeypatch):
    monkeypatch.setattr("mars_export.demo.find_spec", lambda name: None)
    said = fails("demo", checkpoint)
    assert "needs gradio" in said
    assert "demo]" in said


def test_the_commands_start_without_gradio():
    code = "import sys, mars_export.cli.main; sys.exit('gradio' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
