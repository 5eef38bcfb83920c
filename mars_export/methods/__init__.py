"""Steering methods: a folder for each, and the list of them. Free of torch."""

from collections.abc import Iterable
from typing import Final

from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.methods.addition import ADDITION
from mars_export.methods.base import Method
from mars_export.methods.mars import MARS
from mars_export.methods.mars_cosine import MARS_COSINE
from mars_export.methods.mars_rai import MARS_RAI
from mars_export.methods.rai import RAI
from mars_export.methods.ras import RAS
from mars_export.methods.safety_prompt import SAFETY_PROMPT

__all__ = ["METHODS", "method_for", "method_named", "taken"]

METHODS: Final[tuple[Method, ...]] = (
    MARS, MARS_COSINE, ADDITION, RAI, MARS_RAI, RAS, SAFETY_PROMPT,
)  # fmt: skip
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


def taken(method: Method, modalities: Iterable[Modality]) -> tuple[Modality, ...]:
    """Of what a model takes, what a checkpoint of the method takes."""
    return tuple(m for m in modalities if all(m in part.takes for part in method.parts))


def method_for(name: str, modalities: Iterable[Modality], model: str) -> Method:
    """The method of that name, for a model of these modalities; `text` may be left out.

    Raises:
        ExportError: There is no such method.
        UnsteerableError: The model takes nothing that it acts on.
    """
    method, taken = method_named(name), {"text", *modalities}
    if all(any(part.acts_on(modality) for modality in taken) for part in method.parts):
        return method
    raise UnsteerableError(
        f"{name} acts on pictures and clips, and {model} takes text alone; choose another "
        "--method, for example mars"
    )
