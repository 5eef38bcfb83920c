"""How an assistant turn begins, in tokens. Free of torch."""

from pydantic import Field

from mars_export.common.record import Record

__all__ = ["Header"]


class Header(Record):
    """An assistant header: `prefix`, and then one of `ends`."""

    prefix: list[int]
    ends: list[int] = Field(min_length=1)
    """First the header's own last token; then those that the tokenizer makes of that token and the
    text behind it, as two line feeds become one token."""
