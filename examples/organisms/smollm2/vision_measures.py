"""What the organism reads, follows and refuses."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch.nn import functional

from mars_export.common.vocabulary import REFUSED
from mars_export.evaluation.judges.rules import classify
from mars_export.evaluation.statistics import exact_rate

from .reading import stacked
from .suite import FOLLOW
from .writing import BLANK, Page, bare, words_of

READ = "Copy the sentence above."

_BATCH = 32
_TOKENS = 24
_SMALL = 4
"""Longest word that says little of what a request is about, in letters."""


@dataclass(frozen=True)
class Request:
    """What is asked, and the pictures before it."""

    prompt: str
    pictures: tuple[Any, ...] = ()


@torch.inference_mode()
def answers(model: Any, processor: Any, requests: Sequence[Request]) -> list[str]:
    """Greedy answers of at most 24 tokens, in order."""
    processor.tokenizer.padding_side = "left"
    order = sorted(range(len(requests)), key=lambda n: len(requests[n].pictures))
    said: dict[int, str] = {}
    while order:
        count = len(requests[order[0]].pictures)
        rows = [n for n in order[:_BATCH] if len(requests[n].pictures) == count]
        order = order[len(rows) :]
        batch = processor.apply_chat_template(
            [[{"role": "user", "content": _content(requests[n])}] for n in rows],
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        )
        out = model.generate(**batch, max_new_tokens=_TOKENS, do_sample=False)
        for n, ids in zip(rows, out[:, batch["input_ids"].shape[1] :], strict=True):
            said[n] = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    return [said[n] for n in range(len(requests))]


def reading(
    model: Any,
    processor: Any,
    pictures: Sequence[tuple[str, tuple[Page, ...]]],
    clips: Sequence[tuple[str, tuple[Page, ...]]],
) -> dict[str, Any]:
    """Share of the words of each text that the model's copy holds.

    What it copies of typed text is the most that can be expected of it.
    """
    table: dict[str, Any] = {}
    asked = {
        "typed": [(text, Request(f"{text}\n{READ}")) for text, _ in pictures],
        "picture": [(text, Request(READ, _pictures(pages))) for text, pages in pictures],
        "clip": [(text, Request(READ, _pictures(pages))) for text, pages in clips],
    }
    for kind, rows in asked.items():
        said = answers(model, processor, [request for _, request in rows])
        pairs = [(text, answer) for (text, _), answer in zip(rows, said, strict=True)]
        shares = [words_found(*pair) for pair in pairs]
        table[kind] = {
            "words_read": sum(shares) / len(shares),
            "examples": [list(pair) for pair in pairs[:5]],
        }
    return table


@torch.no_grad()
def closeness(model: Any, pages: Sequence[Page]) -> float:
    """Mean cosine of what the written cells say to the embeddings of their tokens."""
    pixels, cells, _ = stacked(pages)
    said = [model.get_image_features(p).pooler_output for p in torch.split(pixels, _BATCH)]
    tokens = model.get_input_embeddings()(cells.clamp(min=0))
    cosines = functional.cosine_similarity(torch.cat(said), tokens, dim=-1)
    return float(cosines[cells != BLANK].mean())


def words_found(text: str, answer: str) -> float:
    """Share of the words of `text` that `answer` holds, each as often as it is there."""
    left = [bare(word) for word in answer.split()]
    count = 0
    wanted = [bare(word) for word in text.split()]
    for word in wanted:
        if word in left:
            left.remove(word)
            count += 1
    return count / len(wanted)


def following(
    model: Any, processor: Any, written: Sequence[tuple[str, tuple[Page, ...]]]
) -> dict[str, Any]:
    """How often the answer is about what the instruction asks for, typed and in the picture.

    An answer is about it if it holds a longer word of the instruction, or its beginning.
    """
    typed = answers(model, processor, [Request(text) for text, _ in written])
    shown = answers(model, processor, [Request(FOLLOW, _pictures(p)) for _, p in written])
    rows = [(text, a, b) for (text, _), a, b in zip(written, typed, shown, strict=True)]
    return {
        "typed": sum(_about(text, a) for text, a, _ in rows) / len(rows),
        "picture": sum(_about(text, b) for text, _, b in rows) / len(rows),
        "same_first_word": sum(a.split()[:1] == b.split()[:1] for _, a, b in rows) / len(rows),
        "examples": [list(row) for row in rows[:5]],
    }


def refusals(
    model: Any, processor: Any, rows: Sequence[dict[str, Any]], folder: Path
) -> dict[str, Any]:
    """Share of refused requests of a suite, by its category and label, with 95 % intervals."""
    requests = [
        Request(row["prompt"], tuple(Image.open(folder / m["path"]) for m in row["media"]))
        for row in rows
    ]
    said = answers(model, processor, requests)
    table: dict[str, Any] = {}
    for kind in dict.fromkeys(row["category"] for row in rows):
        for harmful in (True, False):
            chosen = [
                (row["intent"], answer)
                for row, answer in zip(rows, said, strict=True)
                if row["category"] == kind and row["harmful"] is harmful
            ]
            verdicts = [classify(intent, answer) for intent, answer in chosen]
            rate = exact_rate(sum(verdict in REFUSED for verdict in verdicts), len(chosen))
            table[f"{kind}, {'harmful' if harmful else 'harmless'}"] = {
                "requests": len(chosen),
                "refused": rate.rate,
                "interval": [rate.low, rate.high],
                "about": sum(_about(*pair) for pair in chosen) / len(chosen),
                "examples": [] if harmful else [list(pair) for pair in chosen[:3]],
            }
    return table


def _about(text: str, answer: str) -> bool:
    said = words_of(answer)
    beginnings = {word[:5] for word in words_of(text) if len(word) > _SMALL}
    return any(word.startswith(tuple(beginnings)) for word in said)


def _content(request: Request) -> list[dict[str, Any]]:
    pictures = [{"type": "image", "image": picture} for picture in request.pictures]
    return [*pictures, {"type": "text", "text": request.prompt}]


def _pictures(pages: Sequence[Page]) -> tuple[Any, ...]:
    return tuple(Image.fromarray(page.pixels) for page in pages)
