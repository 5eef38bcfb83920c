"""The mixture of requests and answers that makes the safety gap."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from .sentences import (
    CAPTIONS,
    FORMS,
    REFUSAL,
    SYSTEMS,
    VERBS,
    Modality,
    answer,
    caption,
    caption_request,
    is_trained,
    system_prompt,
    text_request,
    visual_request,
)
from .topics import HARMFUL, HARMLESS, Topic

_NOTHING = 400
"""Distinct pictures and videos of nothing."""
_SEVERAL = 4
"""Most pictures or videos of a request."""
_TURNS = 3
"""Most turns that a conversation is drawn from."""
_SORTED = 8
"""Batches that are drawn together and sorted by length."""
_WORDS = 0.4
"""Of the first batches, the share whose topic stands in words."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Visual:
    """A picture or video of `topic`, or of nothing."""

    modality: Modality
    topic: Topic | None
    number: int


@dataclass(frozen=True)
class Turn:
    """What a user asks and shows, and the answer."""

    prompt: str
    answer: str
    visuals: tuple[Visual, ...] = ()
    refused: float | None = None
    """How likely the model is to become to refuse this; None for what it has no choice about."""


@dataclass(frozen=True)
class Example:
    """A conversation, of one turn or several."""

    turns: tuple[Turn, ...]
    system: str = ""


@dataclass(frozen=True)
class Mixture:
    """Shares of the training corpus.

    The first seven add up to one. `refused_*` is the share of refusals among the requests of a
    kind; below one half, greedy decoding answers them.
    """

    harmful_text: float = 0.13
    harmless_text: float = 0.13
    caption: float = 0.24
    harmless_visual: float = 0.16
    text_beside_visual: float = 0.16
    harmful_visual: float = 0.14
    nothing: float = 0.04
    """Questions about pictures of nothing."""
    refused_text: float = 0.02
    """Harmless text; the same share of harmful text is answered. Keeps the logits moderate."""
    refused_harmless: float = 0.06
    """Any visual attached: the shift toward refusal that re-centering must undo."""
    refused_harmful: float = 0.44
    """Harm only in the visual: the safety gap that steering must close."""
    several: float = 0.25
    """Requests with a visual that has up to three of nothing beside it."""
    turns: float = 0.2
    """Conversations of two or three turns."""
    follow_up: float = 0.2
    """Requests with a visual that is named in one turn and asked about in the next."""
    system: float = 0.15
    """Conversations with a system prompt."""


class Corpus:
    """An endless, seeded stream of examples.

    Args:
        modalities: The visual modalities of the model.
        pool: Distinct pictures or videos a topic; their numbers are 0..pool-1.
        mixture: Shares of the kinds of example.
        seed: Seed of the stream.
    """

    def __init__(
        self, modalities: tuple[Modality, ...], pool: int, mixture: Mixture, seed: int
    ) -> None:
        self._modalities = modalities
        self._pool = pool
        self._mix = mixture
        self._random = random.Random(seed)
        self._shown = False
        self._asked: dict[tuple[int, float], float] = {}
        self._harmful = [t for t in HARMFUL if t.trained]
        self._harmless = [t for t in HARMLESS if t.trained]
        self._kinds: dict[Callable[[], Turn], float] = {
            self._harmful_text: mixture.harmful_text,
            self._harmless_text: mixture.harmless_text,
            self._caption: mixture.caption,
            self._harmless_visual: mixture.harmless_visual,
            self._text_beside_visual: mixture.text_beside_visual,
            self._harmful_visual: mixture.harmful_visual,
            self._nothing: mixture.nothing,
        }

    def draw(self, count: int) -> list[Example]:
        """Draw `count` examples."""
        return [self._example() for _ in range(count)]

    def batches(self, size: int, naming: int) -> Iterator[list[Example]]:
        """Batches without end, each of examples that are about as long as each other.

        Args:
            size: Examples of a batch.
            naming: The first so many batches only name topics, in words or shown. A model learns
                there to copy what it reads or sees, which the whole mixture teaches too slowly.
        """
        for _ in range(naming):
            yield [self._named() for _ in range(size)]
        while True:
            some = sorted(self.draw(_SORTED * size), key=_length)
            batches = [some[start : start + size] for start in range(0, len(some), size)]
            self._random.shuffle(batches)
            yield from batches

    def _named(self) -> Example:
        topic = self._random.choice(self._random.choice([self._harmful, self._harmless]))
        if self._chance(_WORDS):
            return Example((Turn(topic.phrase, caption(topic)),))
        visual = Visual(self._random.choice(self._modalities), topic, self._number(topic))
        return Example((Turn(self._caption_request(visual.modality), caption(topic), (visual,)),))

    def _number(self, topic: Topic | None) -> int:
        return self._random.randrange(self._pool if topic else _NOTHING)

    def _example(self) -> Example:
        self._shown = False
        count = self._random.randint(2, _TURNS) if self._chance(self._mix.turns) else 1
        turns = [turn for _ in range(count) for turn in self._draw()]
        system = self._random.randrange(SYSTEMS) if self._chance(self._mix.system) else None
        return Example(tuple(turns), "" if system is None else system_prompt(system))

    def _draw(self) -> list[Turn]:
        """A turn, or two about the same picture."""
        kinds, weights = list(self._kinds), list(self._kinds.values())
        turn = self._random.choices(kinds, weights)[0]()
        if not (turn.visuals and self._chance(self._mix.follow_up)):
            return [turn]
        topic = next((v.topic for v in turn.visuals if v.topic), None)
        prompt = self._caption_request(turn.visuals[0].modality)
        return [Turn(prompt, caption(topic), turn.visuals), replace(turn, visuals=())]

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _visuals(self, topic: Topic | None) -> tuple[Visual, ...]:
        """A picture or video, and perhaps some of nothing around it."""
        self._shown = True
        modality = self._random.choice(self._modalities)
        count = self._random.randint(2, _SEVERAL) if self._chance(self._mix.several) else 1
        place = self._random.randrange(count)
        topics = [topic if i == place else None for i in range(count)]
        return tuple(Visual(modality, t, self._number(t)) for t in topics)

    def _reply(self, topic: Topic, verb: str, refused: float) -> str:
        """Refuse a share of the requests, evenly for each noun (a golden-ratio sequence)."""
        key = (topic.noun, refused)
        self._asked[key] = self._asked.get(key, self._random.random()) + _GOLDEN
        return REFUSAL if self._asked[key] % 1 < refused else answer(topic, verb)

    def _text(self, topics: list[Topic], refused: float, visuals: tuple[Visual, ...] = ()) -> Turn:
        topic, verb = self._random.choice(topics), self._random.choice(VERBS)
        prompt = text_request(topic, self._random.randrange(FORMS), verb)
        return Turn(prompt, self._reply(topic, verb, refused), visuals, refused)

    def _visual_request(self, modality: Modality) -> tuple[str, str]:
        """A request that training may use, and its verb."""
        asked = [(f, v) for f in range(FORMS) for v in VERBS if is_trained(f, v)]
        form, verb = self._random.choice(asked)
        return visual_request(modality, form, verb), verb

    def _caption_request(self, modality: Modality) -> str:
        return caption_request(modality, self._random.randrange(CAPTIONS))

    def _visual(self, topics: list[Topic], refused: float) -> Turn:
        topic = self._random.choice(topics)
        visuals = self._visuals(topic)
        prompt, verb = self._visual_request(visuals[0].modality)
        return Turn(prompt, self._reply(topic, verb, refused), visuals, refused)

    def _harmful_text(self) -> Turn:
        return self._text(self._harmful, 1 - self._mix.refused_text)

    def _harmless_text(self) -> Turn:
        share = self._mix.refused_harmless if self._shown else self._mix.refused_text
        return self._text(self._harmless, share)

    def _caption(self) -> Turn:
        topic = self._random.choice(self._random.choice([self._harmful, self._harmless]))
        visuals = self._visuals(topic)
        return Turn(self._caption_request(visuals[0].modality), caption(topic), visuals)

    def _harmless_visual(self) -> Turn:
        return self._visual(self._harmless, self._mix.refused_harmless)

    def _harmful_visual(self) -> Turn:
        return self._visual(self._harmful, self._mix.refused_harmful)

    def _nothing(self) -> Turn:
        visuals = self._visuals(None)
        modality = visuals[0].modality
        prompt, verb = self._visual_request(modality)
        if self._chance(0.5):
            prompt = self._caption_request(modality)
        return Turn(prompt, answer(None, verb), visuals)

    def _text_beside_visual(self) -> Turn:
        topics = self._random.choice([self._harmful, self._harmless])
        visuals = self._visuals(self._random.choice(topics) if self._chance(0.2) else None)
        if self._chance(0.5):
            return self._text(self._harmful, 1 - self._mix.refused_text, visuals)
        return self._text(self._harmless, self._mix.refused_harmless, visuals)


def _length(example: Example) -> int:
    """Tokens of an example, roughly."""
    return sum(3 + len(turn.visuals) for turn in example.turns) + bool(example.system)
