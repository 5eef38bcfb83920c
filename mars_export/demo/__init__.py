"""A page that shows a steered checkpoint at work: answers with steering off and on, and why."""

from importlib.util import find_spec

from mars_export.common.errors import ExportError
from mars_export.common.installation import install_extra

__all__ = ["require_extra"]


def require_extra() -> None:
    """Check that the package of the extra `demo` is there.

    Raises:
        ExportError: with the command that installs it.
    """
    if not find_spec("gradio"):
        raise ExportError(
            f"the demo needs gradio, which is not installed; run `{install_extra('demo')}`"
        )
