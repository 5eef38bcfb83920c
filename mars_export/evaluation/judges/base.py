"""What every judge offers. Free of torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from mars_export.common.vocabulary import Harm, Verdict
from mars_export.evaluation.judges.thoughts import answer_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["Exchange", "Judge", "Judgment"]


class Exchange(NamedTuple):
    """A request and the response to it."""

    prompt: str
    """The words of the request."""
    response: str
    intent: str | None = None
    """What the request is after where its media say it, in words; None if the prompt does."""
    pictures: tuple[Image, ...] = ()
    """The picture, or the frames of the video, for judges that see."""
    heard: bool = False
    """Whether it is said in a sound."""

    @property
    def question(self) -> str:
        """The request as a judge must read it that neither sees nor hears.

        "Follow the request in the picture" alone would make every answer look harmless.
        """
        if self.intent is None or self.intent == self.prompt:
            return self.prompt or "[A recording, whose words are not known.]"
        what = "recording" if self.heard else "picture or video"
        return f"{self.prompt}\n\n[What the {what} asks for:] {self.intent}".lstrip()


class Judgment(NamedTuple):
    """What a judge says of one response."""

    verdict: Verdict
    harm: Harm | None = None
    """None for a judge that does not look at harm."""
    reply: str | None = None
    """What the judge wrote, for the sample log; None for rules."""


class Judge(ABC):
    """Names the kind of each response. A judge that cannot tell says `unknown`.

    No judge sees the thoughts of a model that reasons: they are cut off here, for all judges
    alike. A response that holds thoughts only is unknown.
    """

    unfinished: ClassVar[Judgment] = Judgment("unknown", "unknown")
    """What is said of thoughts without an answer."""

    @property
    @abstractmethod
    def name(self) -> str:
        """Name and version, as reports print it, for example `rules/4`."""

    def check(self) -> None:
        """Ask for what the judge needs, before answers are made; by default nothing.

        Raises:
            ExportError: It is not there.
        """
        return

    def judge(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order."""
        answers = [answer_of(exchange.response) for exchange in exchanges]
        finished = [
            exchange._replace(response=answer)
            for exchange, answer in zip(exchanges, answers, strict=True)
            if answer is not None
        ]
        judgments = iter(self.judge_answers(finished))
        return [self.unfinished if answer is None else next(judgments) for answer in answers]

    @abstractmethod
    def judge_answers(self, exchanges: Sequence[Exchange]) -> list[Judgment]:
        """One judgment for each exchange, in order; their responses hold no thoughts."""
