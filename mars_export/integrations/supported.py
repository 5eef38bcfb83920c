"""What the integrations can steer: they repeat parts of the host that are written for MARS."""

from collections.abc import Mapping
from typing import Any

from mars_export.common.errors import ExportError
from mars_export.runtime.host import RULES_VERSION

__all__ = ["require_mars"]


def require_mars(rules: Mapping[str, Any], what: str) -> None:
    """Refuse a checkpoint that is not steered by MARS at the end of each turn.

    Args:
        rules: `steering` of its config.json.
        what: Beginning of the message, for example `DIR cannot be written as ONNX`.

    Raises:
        ExportError: if it is steered otherwise, or its rules are of another release.
    """
    if rules.get("version") != RULES_VERSION:
        raise ExportError(
            f"{what}: the steering rules in its config.json are of version "
            f"{rules.get('version')!r}, and this release reads {RULES_VERSION}; use the release "
            "that wrote it"
        )
    method, positions = rules["method"], rules["positions"]
    if (method, positions) != ("mars", "turn_end"):
        raise ExportError(
            f"{what}: it is steered by {method!r} at positions {positions!r}, and only 'mars' at "
            "'turn_end' is supported here; load it with Transformers"
        )
