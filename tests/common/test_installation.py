"""The hint at an extra fits how the package was installed."""

import json
import shlex
from types import SimpleNamespace

import pytest

from mars_export.common import installation
from mars_export.common.installation import install_extra
from support.organisms import ROOT


def test_a_checkout_keeps_its_constraints(monkeypatch, tmp_path):
    monkeypatch.chdir(ROOT)
    assert install_extra("onnx") == "pip install -c constraints.txt -e '.[onnx]'"
    monkeypatch.chdir(tmp_path)
    words = shlex.split(install_extra("onnx"))
    assert words == ["pip", "install", "-c", f"{ROOT}/constraints.txt", "-e", f"{ROOT}[onnx]"]


@pytest.mark.parametrize(
    ("record", "requirement"),
    [
        (None, "mars-export[onnx]"),
        ({"url": "file:///a/b.whl", "archive_info": {}}, "mars-export[onnx] @ file:///a/b.whl"),
        (
            {"url": "https://x/y.git", "vcs_info": {"vcs": "git", "commit_id": "12ab"}},
            "mars-export[onnx] @ git+https://x/y.git@12ab",
        ),
    ],
)
def test_elsewhere_it_comes_from_where_pip_took_it(monkeypatch, tmp_path, record, requirement):
    text = None if record is None else json.dumps(record)
    monkeypatch.setattr(installation, "_ROOT", tmp_path)
    monkeypatch.setattr(
        installation, "distribution", lambda _: SimpleNamespace(read_text=lambda _: text)
    )
    assert shlex.split(install_extra("onnx")) == ["pip", "install", requirement]
