"""The method that docs/extending.md walks through works as it stands on the page."""

import re
import sys
from importlib import import_module
from pathlib import Path

import pytest

import mars_export.methods as package
from mars_export.checkpoint.derived import read_steering
from mars_export.evaluation.selfcheck import self_check
from support import methods

PAGE = Path(__file__).parents[2] / "docs" / "extending.md"
BLOCK = re.compile(r'```\w+ title="mars_export/methods/(\S+)"\n(.*?)```', re.DOTALL)


@pytest.fixture
def step(tmp_path, monkeypatch):
    """The method of the page, in a folder that stands beside the package's own."""
    blocks = BLOCK.findall(PAGE.read_text("utf-8"))
    assert len(blocks) <= 5
    for name, text in blocks:
        path = tmp_path / "methods" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / "methods")])
    method = import_module("mars_export.methods.step").STEP
    monkeypatch.setattr(package, "METHODS", (*package.METHODS, method))
    yield method
    for name in [name for name in sys.modules if name.startswith("mars_export.methods.step")]:
        del sys.modules[name]


def test_the_method_of_the_page_steers_a_checkpoint(step, tmp_path):
    exported = methods.export("step", tmp_path, step=2.0)
    assert exported.manifest.calibration.record.length > 0
    check = self_check(exported.load(), exported.manifest)
    assert check.active, check.detail
    section = step.card(exported.artefact.record)
    assert "| layer |" in section.details
    assert section.threats == step.threats
    rules, tensors = read_steering(exported.directory)
    assert step.options_like(rules, same_layer=True) == step.Options(step=2.0)
    (difference,) = step.compare(rules, tensors[rules["layers"][0]], exported.artefact)
    assert difference.fits
