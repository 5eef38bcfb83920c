"""The folder of a Space, and what it refuses to show."""

import ast
import json
from importlib.metadata import version
from types import SimpleNamespace

import pytest
import yaml

from mars_export.cli.main import main
from mars_export.common.errors import ExportError
from mars_export.demo import space as spaces
from mars_export.demo.publishing import make_space
from mars_export.demo.space import SPACE_FILES, require_meant, serve, space_files, write_space
from mars_export.families.directory import digest


@pytest.fixture(autouse=True)
def gradio_has_a_version(monkeypatch):
    """Also where it is not installed."""
    monkeypatch.setattr(spaces, "version", lambda n: "6.31.0" if n == "gradio" else version(n))
    needs = ["transformers>=5.16", 'gradio>=6.31; extra == "demo"', 'mypy; extra == "test"']
    monkeypatch.setattr(spaces, "distribution", lambda _: SimpleNamespace(requires=needs))
    monkeypatch.setattr("mars_export.demo.publishing.require_extra", lambda: None)


def test_the_folder_names_what_it_shows_exactly(checkpoint, tmp_path):
    folder = write_space(checkpoint, "org/demo", "org/model", tmp_path / "demo")
    assert {path.name for path in folder.iterdir()} == set(SPACE_FILES)
    matter = yaml.safe_load((folder / "README.md").read_text("utf-8").split("---\n")[1])
    assert (matter["sdk"], matter["sdk_version"]) == ("gradio", "6.31.0")
    assert (matter["title"], matter["models"]) == ("demo", ["org/model"])
    assert matter["app_file"] == "app.py"
    lines = (folder / "requirements.txt").read_text("utf-8").splitlines()
    assert all("==" in line and "+" not in line for line in lines)
    assert lines == [
        f"mars-export[demo]=={version('mars-export')}",
        "gradio==6.31.0",
        f"transformers=={version('transformers')}",
    ]
    (call,) = [
        n
        for n in ast.walk(ast.parse((folder / "app.py").read_text("utf-8")))
        if isinstance(n, ast.Call)
    ]
    assert (call.func.id, call.args[0].value) == ("serve", "org/model")
    assert call.keywords[0].value.value == digest(checkpoint / "steering_manifest.json")
    again = space_files(checkpoint, "org/demo", "org/model")
    assert write_space(checkpoint, "org/demo", "org/model", folder) == folder
    assert again["app.py"] == (folder / "app.py").read_text("utf-8")


def test_nothing_else_is_written_over(checkpoint, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(ExportError, match=r"it holds notes\.txt"):
        write_space(checkpoint, "org/demo", "org/model", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_another_or_a_changed_checkpoint_is_not_shown(checkpoint, tmp_path, monkeypatch):
    import shutil

    copy = shutil.copytree(checkpoint, tmp_path / "copy")
    meant = digest(copy / "steering_manifest.json")
    require_meant(copy, "org/model", meant)
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda repo: str(copy))
    with pytest.raises(ExportError, match="holds another checkpoint"):
        serve("org/model", manifest_sha256="0" * 64)
    config = json.loads((copy / "config.json").read_text("utf-8"))
    (copy / "config.json").write_text(json.dumps({**config, "bos_token_id": 7}))
    with pytest.raises(ExportError, match="is not the file that was exported"):
        require_meant(copy, "org/model", meant)


@pytest.mark.parametrize(
    ("name", "what"), [("demo", "names no owner"), ("org/a b", "cannot be a repository")]
)
def test_names_are_those_of_the_hub(checkpoint, tmp_path, monkeypatch, name, what):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ExportError, match=what):
        make_space(checkpoint, name)
    assert list(tmp_path.iterdir()) == []


def test_the_checkpoint_is_that_of_push_by_default(checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as stopped:
        main(["demo", str(checkpoint), "--space", "org/demo"])
    assert stopped.value.code == 0
    out, err = capsys.readouterr()
    assert (out, err) == ("demo\n", "the Space loads org/tiny-gemma3-MARS\n")
    assert "'org/tiny-gemma3-MARS'" in (tmp_path / "demo/app.py").read_text("utf-8")
