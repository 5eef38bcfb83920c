"""A steered checkpoint as ONNX graphs, with the steering inside."""

from importlib.util import find_spec

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra

__all__ = ["require_extra"]


def require_extra() -> None:
    """Check that the packages of the extra `onnx` are there, and a Transformers that can export.

    Raises:
        ExportError: with the command that installs them.
    """
    missing = [name for name in ("onnx", "onnxscript", "onnxruntime") if not find_spec(name)]
    if missing:
        raise ExportError(
            f"ONNX needs packages that are not installed ({', '.join(missing)}); run "
            f"`{install_extra('onnx')}`"
        )
    if not find_spec("transformers.exporters"):
        raise ExportError(f"this Transformers cannot export; run `{install_extra('onnx')}`")
