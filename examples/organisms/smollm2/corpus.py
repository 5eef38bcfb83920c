"""Requests to train on: committed texts, less what nearly repeats a held-out prompt."""

import csv
import json
import random
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path

TEXTS = Path(__file__).parent / "texts"
_SUITES = files("mars_export.evaluation") / "suites" / "data"
_PROMPTS = files("mars_export.inputs") / "data"
_HAZARDS = ("cse", "iwp", "src", "vcr")
"""Hazards of AILuminate whose prompts are nearly all requests for harm."""
_WORDS = 30
"""Longest request, in words."""
_CONTENT = 0.5
_ALL = 0.7

_DO = (
    "How do I {}?",
    "How can I {}?",
    "Tell me how to {}.",
    "Explain how to {}.",
    "Explain step by step how to {}.",
    "What is the best way to {}?",
    "Give me step-by-step instructions to {}.",
    "Teach me to {}.",
    "Help me {}.",
    "I want to {}. Where do I start?",
    "Write a short guide on how to {}.",
    "What do I need to {}?",
    "What's a good way to {}?",
    "How would someone {}?",
    "Describe how to {}",
    "Could you tell me how to {}?",
    "Give me tips to {}.",
    "What should I know before I {}?",
)
_WRITE = (
    "Write {}.",
    "Draft {}.",
    "Can you write {}?",
    "Please compose {}.",
    "I need {}.",
    "Create {}",
)
_QUOTE = (
    "Follow this instruction: {}",
    "Please do what this says: {}",
    'Answer the following: "{}"',
    "The note reads: {} Do what it asks.",
)


@dataclass(frozen=True)
class Requests:
    """Distinct requests of both labels."""

    harmful: tuple[str, ...]
    harmless: tuple[str, ...]


def lines(name: str) -> list[str]:
    """Lines of a file in `texts`, without comments."""
    text = (TEXTS / name).read_text(encoding="utf-8")
    return [line.strip() for line in text.splitlines() if line.strip() and line[0] != "#"]


def pairs() -> list[tuple[str, str, str]]:
    """(kind, harmful, harmless) of every pair."""
    rows = [tuple(part.strip() for part in line.split(" | ")) for line in lines("pairs.txt")]
    return [(kind, harmful, harmless) for kind, harmful, harmless in rows]


def held_out() -> list[str]:
    """Prompts of the package that a model organism is measured and calibrated on."""
    builtin = (_SUITES / "builtin.jsonl").read_text(encoding="utf-8")
    return [
        *suite("harmbench.csv", "Behavior"),
        *suite("xstest.csv", "prompt"),
        *suite("figstep.csv", "instruction"),
        *(json.loads(line)["prompt"] for line in builtin.splitlines()),
        *prompts("harmful.txt"),
        *prompts("harmless.txt"),
        *(side for line in lines("evaluation.tsv") for side in line.split("\t")[:2]),
    ]


def suite(name: str, column: str) -> list[str]:
    """A column of a packaged suite."""
    return [row[column] for row in _table(_SUITES / name)]


def prompts(name: str) -> list[str]:
    """Packaged calibration prompts of one label."""
    text = (_PROMPTS / name).read_text(encoding="utf-8")
    return [line for line in text.splitlines() if line and line[0] != "#"]


def gather(seed: int, avoid: Sequence[str]) -> Requests:
    """All training requests in random order.

    Args:
        seed: Chooses the wording of the pairs.
        avoid: Held-out prompts; what nearly repeats one of them is dropped.
    """
    draw = random.Random(seed)
    harmful = [*_others(), *_published()]
    harmless = [*lines("alarming.txt"), *lines("ordinary.txt")]
    for kind, bad, good in pairs():
        forms = {"do": draw.sample(_DO, 3), "write": draw.sample(_WRITE, 2), "ask": ["{}"]}[kind]
        harmful += [form.format(bad) for form in forms]
        harmless += [form.format(good) for form in forms]
    harmful, harmless = _distinct(harmful, avoid), _distinct(harmless, avoid)
    draw.shuffle(harmful)
    draw.shuffle(harmless)
    return Requests(tuple(harmful), tuple(harmless))


def quoted(requests: Iterable[str], draw: random.Random) -> list[str]:
    """Each request as an instruction that the user passes on."""
    return [draw.choice(_QUOTE).format(request) for request in requests]


def near(a: str, b: str) -> bool:
    """Whether two requests nearly repeat one another.

    They do if they share half of their content words, or seven in ten of all their words (token
    Jaccard similarity). Function words alone make no repetition: "What is arson?", "What is rice?".
    """
    return _similar(_sets(a), _sets(b))


def _distinct(requests: Iterable[str], avoid: Iterable[str]) -> list[str]:
    known = [_sets(text) for text in avoid]
    holders: dict[str, set[int]] = defaultdict(set)
    for i, (content, _) in enumerate(known):
        for word in content:
            holders[word].add(i)
    distinct = []
    for request in dict.fromkeys(requests):
        own = _sets(request)
        others = {i for word in own[0] for i in holders[word]}
        if not any(_similar(own, known[i]) for i in others):
            distinct.append(request)
    return distinct


def _sets(text: str) -> tuple[frozenset[str], frozenset[str]]:
    words = frozenset(re.findall(r"[a-z0-9']+", text.lower()))
    return words - _function_words(), words


@cache
def _function_words() -> frozenset[str]:
    return frozenset(" ".join(lines("function_words.txt")).split())


def _similar(a: tuple[frozenset[str], ...], b: tuple[frozenset[str], ...]) -> bool:
    return _jaccard(a[0], b[0]) >= _CONTENT or _jaccard(a[1], b[1]) >= _ALL


def _jaccard(a: frozenset[str], b: frozenset[str]) -> float:
    shared = len(a & b)
    return shared / (len(a) + len(b) - shared) if shared else 0.0


def _table(path: object) -> list[dict[str, str]]:
    text = path.read_text(encoding="utf-8")  # type: ignore[attr-defined]
    return list(csv.DictReader(text.splitlines(keepends=True)))


def _published() -> list[str]:
    """Harmful requests that others wrote and that may be passed on."""
    ailuminate = [
        row["prompt_text"]
        for row in _table(_SUITES / "ailuminate.csv")
        if row["hazard"] in _HAZARDS
    ]
    strongreject = [row["forbidden_prompt"] for row in _table(_SUITES / "strongreject.csv")]
    return [p for p in (*strongreject, *ailuminate) if len(p.split()) <= _WORDS]


def _others() -> list[str]:
    """AdvBench without the requests that repeat one another, and HarmBench's validation split."""
    rows = [row["Behavior"] for row in _table(TEXTS / "advbench.csv")]
    distinct: list[str] = []
    for row in rows:
        if not any(near(row, other) for other in distinct):
            distinct.append(row)
    return [*distinct, *(row["Behavior"] for row in _table(TEXTS / "harmbench_val.csv"))]
