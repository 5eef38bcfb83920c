"""Which chat template of a processor Transformers takes, and what is said where there is none."""

from collections.abc import Mapping
from typing import Any

from mars_export.common.errors import ExportError
from mars_export.inputs.merges import tokenizer_of

__all__ = ["chat_template", "require_template"]


def chat_template(processor: Any) -> str:
    """The chat template that is taken if nobody names one; empty if there is none.

    Args:
        processor: A Transformers processor or tokenizer.
    """
    template = getattr(processor, "chat_template", None)
    if isinstance(template, Mapping):  # several, by name
        template = template.get("default")
    return str(template or "")


def require_template(processor: Any) -> None:
    """Refuse a processor without a chat template.

    Raises:
        ExportError: There is none that is taken; says where one may lie.
    """
    if chat_template(processor):
        return
    named = getattr(processor, "chat_template", None)
    if isinstance(named, Mapping) and named:
        raise ExportError(
            f"The model has the chat templates {', '.join(sorted(map(str, named)))} and none that "
            "is called default; save the one to use as chat_template.jinja."
        )
    if chat_template(tokenizer_of(processor)):
        raise ExportError(
            "The processor has no chat template, only its tokenizer has one, which takes no "
            "pictures; save one for the processor as chat_template.jinja."
        )
    raise ExportError("The processor has no chat template; add chat_template.jinja to the model.")
