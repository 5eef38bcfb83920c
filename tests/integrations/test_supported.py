"""The integrations refuse what they cannot steer, in one line."""

import pytest

from mars_export.common.errors import ExportError
from mars_export.integrations.onnx.export import export_onnx
from mars_export.integrations.supported import require_mars
from mars_export.runtime.host import RULES_VERSION
from support import tiny

RULES = {"version": RULES_VERSION, "method": "mars", "positions": "turn_end"}


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"positions": "all"}, "steered by 'mars' at positions 'all', and only 'mars' at"),
        ({"method": "addition"}, "steered by 'addition' at positions 'turn_end'"),
        ({"version": 0}, f"of version 0, and this release reads {RULES_VERSION}"),
    ],
)
def test_other_steering_is_refused(changes, why):
    require_mars(RULES, "it cannot be served")
    with pytest.raises(ExportError, match=f"^it cannot be served: .*{why}") as raised:
        require_mars({**RULES, **changes}, "it cannot be served")
    assert "\n" not in str(raised.value)


def test_constant_addition_is_not_written_as_onnx(tmp_path):
    pytest.importorskip("onnxscript")
    _, directory = tiny.export("gemma3", tmp_path, method="addition")
    with pytest.raises(ExportError, match="cannot be written as ONNX: it is steered by 'addition'"):
        export_onnx(directory, tmp_path / "onnx")
    assert not (tmp_path / "onnx").exists()
