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
    shown_request,
    system_prompt,
    text_request,
)
from .topics import HARMFUL, HARMLESS, Topic

NUMBERS = 400
"""Distinct pictures, videos and recordings of nothing."""
_SEVERAL = 4
"""Most pictures, videos or recordings of a request."""
_TURNS = 3
"""Most turns that a conversation is drawn from."""
_SORTED = 8
"""Batches that are drawn together and sorted by length."""
_WORDS = 0.4
"""Of the first batches, the share whose topic stands in words."""
_LENGTH = {"audio": 3}
"""How long a recording is, in pictures."""
_GOLDEN = 0.6180339887498949


@dataclass(frozen=True)
class Medium:
    """A picture, video or recording of `topic`, or of nothing."""

    modality: Modality
    topic: Topic | None
    number: int


@dataclass(frozen=True)
class Turn:
    """What a user asks and shows, and the answer."""

    prompt: str
    answer: str
    media: tuple[Medium, ...] = ()
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
    harmless_shown: float = 0.16
    text_beside: float = 0.16
    harmful_shown: float = 0.14
    nothing: float = 0.04
    """Questions about pictures, videos or recordings of nothing."""
    refused_text: float = 0.02
    """Harmless text; the same share of harmful text is answered. Keeps the logits moderate."""
    refused_harmless: float = 0.06
    """Anything shown beside it: the shift toward refusal that re-centering must undo."""
    refused_harmful: float = 0.44
    """Harm only in what is shown: the safety gap that steering must close."""
    several: float = 0.25
    """Requests that show something, with up to three of nothing beside it."""
    turns: float = 0.2
    """Conversations of two or three turns."""
    follow_up: float = 0.2
    """Requests with something that is named in one turn and asked about in the next."""
    system: float = 0.15
    """Conversations with a system prompt."""


class Corpus:
    """An endless, seeded stream of examples.

    Args:
        modalities: What the model takes beside text.
        pool: Distinct pictures, videos or recordings a topic; their numbers are 0..pool-1.
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
            self._harmless_shown: mixture.harmless_shown,
            self._text_beside: mixture.text_beside,
            self._harmful_shown: mixture.harmful_shown,
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
            return Example((Turn(topic.phrase, caption(topic, "text")),))
        medium = Medium(self._random.choice(self._modalities), topic, self._number(topic))
        return Example((self._captioned((medium,)),))

    def _number(self, topic: Topic | None) -> int:
        return self._random.randrange(self._pool if topic else NUMBERS)

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
        if not (turn.media and self._chance(self._mix.follow_up)):
            return [turn]
        return [self._captioned(turn.media), replace(turn, media=())]

    def _captioned(self, media: tuple[Medium, ...]) -> Turn:
        """A turn that names what is shown."""
        topic = next((medium.topic for medium in media if medium.topic), None)
        modality = media[0].modality
        return Turn(self._caption_request(modality), caption(topic, modality), media)

    def _chance(self, share: float) -> bool:
        return self._random.random() < share

    def _media(self, topic: Topic | None) -> tuple[Medium, ...]:
        """A picture, video or recording, and perhaps some of nothing around it."""
        self._shown = True
        modality = self._random.choice(self._modalities)
        count = self._random.randint(2, _SEVERAL) if self._chance(self._mix.several) else 1
        place = self._random.randrange(count)
        topics = [topic if i == place else None for i in range(count)]
        return tuple(Medium(modality, t, self._number(t)) for t in topics)

    def _reply(self, topic: Topic, verb: str, refused: float) -> str:
        """Refuse a share of the requests, evenly for each noun (a golden-ratio sequence)."""
        key = (topic.noun, refused)
        self._asked[key] = self._asked.get(key, self._random.random()) + _GOLDEN
        return REFUSAL if self._asked[key] % 1 < refused else answer(topic, verb)

    def _text(self, topics: list[Topic], refused: float, media: tuple[Medium, ...] = ()) -> Turn:
        topic, verb = self._random.choice(topics), self._random.choice(VERBS)
        prompt = text_request(topic, self._random.randrange(FORMS), verb)
        return Turn(prompt, self._reply(topic, verb, refused), media, refused)

    def _shown_request(self, modality: Modality) -> tuple[str, str]:
        """A request that training may use, and its verb."""
        asked = [(f, v) for f in range(FORMS) for v in VERBS if is_trained(f, v)]
        form, verb = self._random.choice(asked)
        return shown_request(modality, form, verb), verb

    def _caption_request(self, modality: Modality) -> str:
        return caption_request(modality, self._random.randrange(CAPTIONS))

    def _shown_turn(self, topics: list[Topic], refused: float) -> Turn:
        topic = self._random.choice(topics)
        media = self._media(topic)
        prompt, verb = self._shown_request(media[0].modality)
        return Turn(prompt, self._reply(topic, verb, refused), media, refused)

    def _harmful_text(self) -> Turn:
        return self._text(self._harmful, 1 - self._mix.refused_text)

    def _harmless_text(self) -> Turn:
        share = self._mix.refused_harmless if self._shown else self._mix.refused_text
        return self._text(self._harmless, share)

    def _caption(self) -> Turn:
        topic = self._random.choice(self._random.choice([self._harmful, self._harmless]))
        return self._captioned(self._media(topic))

    def _harmless_shown(self) -> Turn:
        return self._shown_turn(self._harmless, self._mix.refused_harmless)

    def _harmful_shown(self) -> Turn:
        return self._shown_turn(self._harmful, self._mix.refused_harmful)

    def _nothing(self) -> Turn:
        media = self._media(None)
        modality = media[0].modality
        prompt, _ = self._shown_request(modality)
        if self._chance(0.5):
            prompt = self._caption_request(modality)
        return Turn(prompt, caption(None, modality), media)

    def _text_beside(self) -> Turn:
        topics = self._random.choice([self._harmful, self._harmless])
        media = self._media(self._random.choice(topics) if self._chance(0.2) else None)
        if self._chance(0.5):
            return self._text(self._harmful, 1 - self._mix.refused_text, media)
        return self._text(self._harmless, self._mix.refused_harmless, media)


def _length(example: Example) -> int:
    """Tokens of an example, roughly."""
    shown = sum(_LENGTH.get(m.modality, 1) for turn in example.turns for m in turn.media)
    return 3 * len(example.turns) + shown + bool(example.system)
