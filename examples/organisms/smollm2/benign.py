"""Benign words, sentences and instructions that the tower learns to read."""

import random
import re
from typing import Any

from .corpus import lines

_COMMON = 1050
"""Of the tokenizer's most frequent words."""
_FORMS = (
    "Tell me a fact about {thing}.",
    "Write a short story about {thing}.",
    "Describe {thing} in a few words.",
    "Why do people like {thing}?",
    "List three things about {thing}.",
    "Write a letter about {thing}.",
    "How do I {task}?",
    "Explain how to {task}.",
    "What is the best way to {task}?",
    "Give me tips to {task}.",
    "Teach me to {task}.",
    "What do I need to {task}?",
)
_THINGS = (
    "bread soup rice tea coffee fish chicken flowers trees dogs cats horses birds music a river "
    "the moon the sun books history science art my friend a teacher a "
    "doctor a farmer summer winter spring snow rain trains cars schools a museum a library "
    "the city a bridge football games a birthday a holiday milk sugar eggs tools paper shoes"
)
_TASKS = (
    "make a cake/learn to swim/plant a tree/paint a wall/make good coffee/cook rice/write a letter/"
    "train a dog/clean a kitchen/build a table/read a map/plan a party/find a good book/draw a "
    "horse/make new friends/sleep better/use less water/grow flowers/clean a bicycle/make bread/"
    "study history/learn a language/play a game/take a picture/cook chicken/make soup/"
    "clean my shoes/find a job/write a song/run faster"
)


def instructions(count: int, seed: int) -> list[str]:
    """Distinct harmless instructions, in random order."""
    rng = random.Random(seed)
    things = re.findall(r"(?:(?:a|the|my) )?\w+", _THINGS)
    everything = sorted(
        {
            form.format(thing=thing, task=task)
            for form in _FORMS
            for thing in things
            for task in _TASKS.split("/")
        }
    )
    return rng.sample(everything, len(everything))[:count]


def sentences() -> list[str]:
    """Benign sentences that are written on training pages."""
    return lines("practice.txt")


def held_out() -> list[str]:
    """Benign sentences that are only ever read in measurements."""
    return lines("sentences.txt")


def common(tokenizer: Any) -> list[str]:
    """Frequent English words, by the tokenizer's own order.

    A token of lower-case letters after a space that also exists with a capital is nearly always
    a whole word.
    """
    ids = tokenizer.get_vocab()
    lower = {t[1:]: n for t, n in ids.items() if re.fullmatch("Ġ[a-z]{3,}", t)}
    both = [word for word in lower if f"Ġ{word.capitalize()}" in ids]
    return sorted(both, key=lower.__getitem__)[:_COMMON]


def often() -> list[str]:
    """Single words that requests use, harmful ones among them, which are seen twice as often."""
    return lines("words.txt")
