"""What of a decoder a graph cannot follow, or only in one way. Short probes would not show it."""

from collections.abc import Iterator
from typing import Any, Final

from mars_export.common.errors import ExportError

__all__ = ["attention_windows", "refuse_frozen_positions"]

_FROZEN: Final = ("dynamic", "longrope")
"""Rotary embeddings that compare the length of a prompt in Python, which an export freezes."""

_ALL_SLIDE: Final = ("mistral",)
"""Decoders without kinds of layer, all of whose layers have the window, if one is set."""


def attention_windows(text: Any) -> dict[str, int | None]:
    """Kinds of layer in a text configuration and the width of their window; None sees everything.

    Raises:
        ExportError: for a kind that is not known here, or a window that no kind of layer has.
    """
    width = getattr(text, "sliding_window", None)
    if text.model_type in _ALL_SLIDE:
        return {"full_attention": None} if width is None else {"sliding_attention": width}
    kinds = sorted(set(getattr(text, "layer_types", None) or ["full_attention"]))
    unknown = set(kinds) - {"full_attention", "sliding_attention"}
    hidden = not hasattr(text, "layer_types") and width is not None
    if unknown or hidden or ("sliding_attention" in kinds and width is None):
        named = ", ".join(sorted(unknown)) or "a sliding window"
        raise ExportError(
            f"the decoder {text.model_type!r} cannot be written as ONNX: {named} in a form that is "
            "not known here"
        )
    windows = {"full_attention": None, "sliding_attention": width}
    return {kind: windows[kind] for kind in kinds}


def refuse_frozen_positions(text: Any) -> None:
    """Check that rotary positions do not depend on comparisons that an export freezes.

    Raises:
        ExportError: if they do.
    """
    frozen = sorted(set(_rope_types(getattr(text, "rope_parameters", None))) & set(_FROZEN))
    if frozen:
        raise ExportError(
            f"the decoder {text.model_type!r} cannot be written as ONNX: its rotary embedding "
            f"({frozen[0]}) changes with the length of a prompt, which a graph would freeze"
        )


def _rope_types(parameters: Any) -> Iterator[str]:
    """Types in the rotary parameters, which may be given for each kind of layer."""
    for name, value in parameters.items() if isinstance(parameters, dict) else ():
        if name in ("rope_type", "type"):
            yield str(value)
        else:
            yield from _rope_types(value)
