"""What every judge offers. Free of torch."""

from collections.abc import Sequence
from typing import Protocol

from mars_export.vocabulary import Verdict

__all__ = ["Exchange", "Judge"]

Exchange = tuple[str, str]
"""A prompt and the response to it."""


class Judge(Protocol):
    """Names the kind of each response. A judge that cannot tell says `unknown`."""

    @property
    def name(self) -> str:
        """Name and version, as reports print it, for example `rules/1`."""
        ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Verdict]:
        """One verdict for each exchange, in order."""
        ...
