"""Steering methods: a folder for each, and the list of them. Free of torch."""

from typing import Final

from mars_export.common.errors import ExportError
from mars_export.methods.addition import ADDITION
from mars_export.methods.base import Method
from mars_export.methods.mars import MARS
from mars_export.methods.ras import RAS
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = ["METHODS", "method_named"]

METHODS: Final[tuple[Method, ...]] = (MARS, ADDITION, RAS, SAFETY_PROMPT)
"""In the order in which they are listed to people; the first is the default."""


def method_named(name: str) -> Method:
    """The method of that name.

    Raises:
        ExportError: There is none; the message lists those that there are.
    """
    for method in METHODS:
        if method.name == name:
            return method
    names = ", ".join(method.name for method in METHODS)
    raise ExportError(f"there is no steering method {name!r}; choose one of {names}")
