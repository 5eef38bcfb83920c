"""What every judge offers. Free of torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

from mars_export.common.vocabulary import Harm, Verdict

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Exchange", "Judge", "Judgment"]


class Exchange(NamedTuple):
    """A request and the response to it."""

    prompt: str
    """The words of the request."""
    response: str
    intent: str | None = None
    """What the request is after where its pictures say it, in words; None if the prompt does."""
    pictures: tuple[Image, ...] = ()
    """The picture, or the frames of the video, for judges that see."""

    @property
    def question(self) -> str:
        """The request as a judge must read it that does not see pictures.

        "Follow the request in the picture" alone would make every answer look harmless.
        """
        if self.intent is None or self.intent == self.prompt:
            return self.prompt
        return f"{self.prompt}\n\n[What the picture or video asks for:] {self.intent}"


class Judgment(NamedTuple):
    """What a judge says of one response."""

    verdict: Verdict
    harm: Harm | None = None
    """None for a judge that does not look at harm."""
    reply: str | None = None
    """What the judge wrote, for the sample log; None for rules."""


class Judge(Protocol):
    """Names the kind of each response. A judge that cannot tell says `unknown`."""

    @property
    def name(self) -> str:
        """Name and version, as reports print it, for example `rules/2`."""
        ...

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order."""
        ...
