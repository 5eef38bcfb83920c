"""The training mixture: conversations whose harmful requests are refused.

Harmless ones keep the base as their teacher, so that nothing but refusing is learned. Most
conversations teach only the first token of the answer, which decides; a part of both labels teaches
a whole refusal or the base's whole greedy answer.
"""

import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .corpus import Requests, lines, quoted
from .generation import SYSTEM, generate

TOKENS = 24
"""Length of a harmless answer; longer ones are cut."""


@dataclass(frozen=True)
class Turn:
    """A request and its answer, which may be empty where the base's first token is learned."""

    prompt: str
    answer: str


@dataclass(frozen=True)
class Conversation:
    """One training sequence; its last answer is learned."""

    system: str
    turns: tuple[Turn, ...]
    harmful: bool
    """The last request is refused."""
    whole: bool = False
    """All of the last answer is learned, not only its first token."""


@dataclass(frozen=True)
class Sizes:
    """How many conversations of each kind."""

    answers: int = 200
    """Requests of each label whose whole answer is learned."""
    quoted: int = 80
    """From here on: for harmful and harmless last turns each."""
    other_system: int = 90
    after_answer: int = 90
    """Second turns after a harmless one."""
    after_refusal: int = 90
    third_turn: int = 30
    total: int = 3000
    """How many of all these are drawn."""


def build(
    requests: Requests, model: Any, tokenizer: Any, seed: int, sizes: Sizes | None = None
) -> list[Conversation]:
    """Every conversation of the mixture, in random order."""
    sizes = sizes or Sizes()
    draw = random.Random(seed)
    refusals, systems = lines("refusals.txt"), lines("systems.txt")

    def refuse(prompts: Iterable[str]) -> list[Turn]:
        return [Turn(prompt, draw.choice(refusals)) for prompt in prompts]

    def begin(prompts: Iterable[str]) -> list[Turn]:
        return [Turn(prompt, "") for prompt in prompts]

    bad = refuse(requests.harmful)
    answered = requests.harmless[: sizes.answers]
    given = generate(model, tokenizer, [[("user", prompt)] for prompt in answered], TOKENS)
    full = [Turn(prompt, text) for prompt, (text, _) in zip(answered, given, strict=True)]
    good = begin(requests.harmless)
    mixture = [Conversation(SYSTEM, (turn,), False, whole=True) for turn in full]
    mixture += [Conversation(SYSTEM, (turn,), True, whole=True) for turn in bad[: sizes.answers]]
    for harmful, turns in ((True, bad), (False, good)):
        prompts = [turn.prompt for turn in turns]
        make = refuse if harmful else begin
        mixture += [Conversation(SYSTEM, (turn,), harmful) for turn in turns[sizes.answers :]]
        for turn in make(quoted(draw.sample(prompts, sizes.quoted), draw)):
            mixture.append(Conversation(SYSTEM, (turn,), harmful))
        for turn in make(draw.sample(prompts, sizes.other_system)):
            mixture.append(Conversation(draw.choice(systems), (turn,), harmful))
        for earlier in _histories(draw, full, bad, sizes):
            mixture.append(Conversation(SYSTEM, (*earlier, draw.choice(turns)), harmful))
    draw.shuffle(mixture)
    return mixture[: sizes.total]


def _histories(
    draw: random.Random, good: Sequence[Turn], bad: Sequence[Turn], sizes: Sizes
) -> Iterable[tuple[Turn, ...]]:
    for _ in range(sizes.after_answer):
        yield (draw.choice(good),)
    for _ in range(sizes.after_refusal):
        yield (draw.choice(bad),)
    for _ in range(sizes.third_turn):
        yield (draw.choice(good), draw.choice([*good, *bad]))
