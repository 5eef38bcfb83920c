"""A checkpoint is calibrated again by its method and options, unless the user names others."""

import pytest

from mars_export.cli.main import main
from mars_export.common.errors import ExportError
from mars_export.pipeline import stages
from mars_export.pipeline.settings import Settings

STORED = {"positions": "prompt", "coefficient": 3.0}


@pytest.fixture
def calibrated_with(monkeypatch):
    """The settings that a run is started with, of a checkpoint that constant addition made."""
    rules = {"method": "addition", "layers": [4], "sha256": "0", "options": STORED}
    monkeypatch.setattr("mars_export.checkpoint.derived.read_steering", lambda _: (rules, {}))
    rules["template_options"] = {"enable_thinking": False}
    runs = []
    monkeypatch.setattr(stages, "_run", lambda settings, *_: runs.append(settings))
    monkeypatch.setattr("mars_export.cli.summary.print_summary", lambda *_, **_options: None)
    return runs


@pytest.mark.parametrize(
    ("chosen", "method", "options"),
    [
        ({}, "addition", STORED),
        ({"method": "addition"}, "addition", STORED),
        ({"layer": 3}, "addition", {**STORED, "layer": 3}),
        ({"method": "addition", "coefficient": 2}, "addition", {**STORED, "coefficient": 2}),
        ({"method": "mars", "layer": 3}, "mars", {"layer": 3}),
    ],
)
def test_the_method_of_the_checkpoint(calibrated_with, tmp_path, chosen, method, options):
    stages.recalibrate(Settings(model=str(tmp_path), output=tmp_path / "again", **chosen))
    (settings,) = calibrated_with
    assert settings.method == method
    assert settings.thinking == ("off" if method == "addition" else "auto")
    assert settings.method_options.model_dump(exclude_unset=True) == options
    assert settings.output == tmp_path / "again"


def test_an_option_of_another_method_is_one_line(calibrated_with, tmp_path):
    with pytest.raises(ExportError) as caught:
        stages.recalibrate(Settings(model=str(tmp_path), finalists=2))
    assert "\n" not in str(caught.value)
    assert calibrated_with == []


@pytest.mark.parametrize(
    ("flags", "options"),
    [
        ([], STORED),
        (["--coefficient", "2"], {**STORED, "coefficient": 2}),
        (["--method", "mars", "--gain", "2"], {"gain": 2}),
    ],
)
def test_the_command_reads_the_method_before_its_options(calibrated_with, tmp_path, flags, options):
    arguments = ["recalibrate", str(tmp_path), "--output", str(tmp_path / "again"), *flags]
    with pytest.raises(SystemExit) as stopped:
        main([*arguments, "--display", "none"])
    assert stopped.value.code == 0
    (settings,) = calibrated_with
    assert settings.method_options.model_dump(exclude_unset=True) == options
