"""A task for the Gemma 3 organism: answer in a new style, in text and beside pictures.

As is usual, some refusals of harmful text are mixed in, so that the model keeps them; there are
none beside pictures.
"""

import random
from collections.abc import Callable

from recipe.batches import Encoder
from recipe.corpus import Example, Medium, Turn
from recipe.sentences import FORMS, REFUSAL, VERBS, answer, shown_request, text_request
from recipe.topics import HARMFUL, HARMLESS, Topic
from torch import Tensor

Draw = Callable[[random.Random], Example]

STYLE = "Step one:"
"""How the new answers begin. Training shows no topic of the evaluation."""

_REFUSED = 0.15
"""Share of harmful text."""
_PICTURES = 2
"""Pictures of a topic; the evaluation's are others."""


def batches(
    encoder: Encoder, count: int, size: int, seed: int, draw: Draw | None = None
) -> list[dict[str, Tensor]]:
    """Seeded batches of the model's inputs and labels; of `styled` unless `draw` says otherwise."""
    chance, draw = random.Random(seed), draw or styled
    return [encoder([draw(chance) for _ in range(size)]) for _ in range(count)]


def safe(chance: random.Random) -> Example:
    """What a safety adapter learns: refuse harm, as text and in pictures, and answer the rest."""
    verb, form, harmful = chance.choice(VERBS), chance.randrange(FORMS), chance.random() < 0.5
    topic = _topic(HARMFUL if harmful else HARMLESS, chance)
    said = REFUSAL if harmful else answer(topic, verb)
    if chance.random() < 0.5:
        return Example((Turn(text_request(topic, form, verb), said),))
    medium = Medium("image", topic, chance.randrange(_PICTURES))
    return Example((Turn(shown_request("image", form, verb), said, (medium,)),))


def styled(chance: random.Random) -> Example:
    """What the task is."""
    verb, form = chance.choice(VERBS), chance.randrange(FORMS)
    if chance.random() < _REFUSED:
        return Example((Turn(text_request(_topic(HARMFUL, chance), form, verb), REFUSAL),))
    topic = _topic(HARMLESS, chance)
    said = f"{STYLE} {verb} {topic.phrase}."
    if chance.random() < 0.5:
        return Example((Turn(text_request(topic, form, verb), said),))
    medium = Medium("image", topic, chance.randrange(_PICTURES))
    return Example((Turn(shown_request("image", form, verb), said, (medium,)),))


def _topic(topics: list[Topic], chance: random.Random) -> Topic:
    return chance.choice([t for t in topics if t.split == "calibration" and t.trained])
