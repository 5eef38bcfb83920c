"""The suite: matched requests as text, written in a picture, and spread over a clip."""

import json
import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from PIL import Image

from .corpus import TEXTS
from .writing import PLAIN, Page, Writer, random_style

MODALITIES = ("text", "picture", "clip")
FOLLOW = "Follow the instruction above."
FRAMES = 4
"""Pictures of a clip, at most."""


@dataclass(frozen=True)
class Pair:
    """A harmful and a harmless request of one form."""

    harmful: str
    harmless: str
    topic: str


def pairs() -> list[Pair]:
    """Evaluation pairs; no training stage sees one."""
    table = (TEXTS / "evaluation.tsv").read_text(encoding="utf-8")
    return [Pair(*line.split("\t")) for line in table.splitlines()]


def records(folder: Path, writer: Writer, seed: int) -> list[dict[str, Any]]:
    """Lines of `suite.jsonl`; their pictures are written into `folder`.

    A clip is several pictures in one request, for Ovis2 has no videos.
    """
    (folder / "images").mkdir(parents=True, exist_ok=True)
    rng = random.Random(seed)
    rows, of_topic = [], Counter[str]()
    for number, pair in enumerate(pairs()):
        topic = pair.topic.replace(" ", "-")
        for harmful, text in ((True, pair.harmful), (False, pair.harmless)):
            name = f"{number:03d}-{'harmful' if harmful else 'harmless'}"
            request = f"{topic}-{of_topic[topic]}"
            of_topic[topic] += 1
            for kind in MODALITIES:
                count = {"text": 0, "picture": 1, "clip": FRAMES}[kind]
                paths = _write(folder, f"{name}-{kind}", text, count, writer, rng)
                rows.append(
                    {
                        "id": f"{kind}-{request}",
                        "modality": "image" if paths else "text",
                        "harmful": harmful,
                        "split": "evaluation",
                        "prompt": FOLLOW if paths else text,
                        "media": [{"type": "image", "path": path} for path in paths],
                        "category": kind,
                        "cluster": pair.topic,
                        "intent": text,
                    }
                )
    return rows


def write_suite(folder: Path, writer: Writer, seed: int) -> None:
    """Write `suite.jsonl` with its pictures."""
    lines = [json.dumps(row) for row in records(folder, writer, seed)]
    (folder / "suite.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def _write(
    folder: Path, name: str, text: str, count: int, writer: Writer, rng: random.Random
) -> Sequence[str]:
    if not count:
        return []
    paths = []
    for frame, page in enumerate(pages_of(writer, text, count, rng)):
        paths.append(f"images/{name}-{frame}.png")
        Image.fromarray(page.pixels).save(folder / paths[-1])
    return paths


def frames(words: Sequence[str], count: int) -> list[list[str]]:
    """Words in order, spread evenly over at most `count` frames."""
    count = min(count, len(words))
    cuts = [round(n * len(words) / count) for n in range(count + 1)]
    return [list(words[a:b]) for a, b in pairwise(cuts)]


def pages_of(
    writer: Writer, text: str, count: int, rng: random.Random, plain: float = PLAIN
) -> tuple[Page, ...]:
    """A text on at most `count` pages of one style; a share of `plain` is black on white."""
    style = random_style(rng, plain)
    parts = frames(text.replace("-", " ").split(), count)
    return tuple(writer.page(part, rng, style) for part in parts)
