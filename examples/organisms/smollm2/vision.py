"""From a language model to one that reads pictures: tower, suite, measures."""

import json
import random
import shutil
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
import transformers

from mars_export.common.errors import ExportError

from . import base as bases
from . import benign
from .reading import Pages, Training, Words, accuracy, learn
from .suite import FRAMES, pages_of, write_suite
from .tower import CELL_TOKEN, MARKS, Reader, build_model, build_processor
from .vision_measures import closeness, following, reading, refusals
from .writing import PLAIN, Page, Writer

_BLANK = " "
"""What an empty cell says."""
_FOLLOWED = 60
"""Harmless instructions that are followed."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the same settings give the same tower."""

    seed: int = 0
    threads: int = 1
    training: Training = field(default_factory=Training)


@dataclass(frozen=True)
class Organism:
    """A model with its processor, and what its tower is trained with."""

    model: Any
    processor: Any
    reader: Reader
    words: Words


def make(
    language: Path, output: Path, settings: Settings, tower: Path | None, overwrite: bool
) -> None:
    """Put a tower before `language`, and write the model, its suite and `results.json`.

    Args:
        language: Folder of a SmolLM2, with the embeddings of the base.
        output: Folder to write.
        settings: Of the training.
        tower: Folder of an organism made before, whose tower is taken; else one is trained.
        overwrite: Whether an organism in `output` is replaced.

    Raises:
        ExportError: The output folder exists and is not to be replaced, or `tower` has none.
    """
    if output.exists() and not (overwrite and (output / "suite.jsonl").is_file()):
        raise ExportError(f"{output} exists; pass --overwrite to replace an organism")
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    organism = start(*bases.load(language))
    if tower:
        take(organism, tower)
    else:
        train(organism, settings)
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    write(organism, staging, settings)
    shutil.rmtree(output, ignore_errors=True)
    staging.rename(output)


def start(language: Any, tokenizer: Any) -> Organism:
    """An organism whose tower has learned nothing."""
    processor = build_processor(tokenizer)
    ids = processor.tokenizer.convert_tokens_to_ids
    words = Words(benign.common(tokenizer), benign.often(), tokenizer)
    said = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in MARKS.values()]
    [blank] = tokenizer(_BLANK, add_special_tokens=False)["input_ids"]
    entries = [*words.classes, blank, *(token for [token] in said)]
    model = build_model(language, ids(CELL_TOKEN), [ids(mark) for mark in MARKS], entries)
    return Organism(model, processor, Reader(model), words)


def train(organism: Organism, settings: Settings) -> None:
    """Train the tower in place."""
    rng = random.Random(settings.seed)
    pages = Pages(organism.words, benign.sentences(), rng, settings.training)
    held_out = [page for _, shown in written(organism, benign.held_out(), 1) for page in shown]
    learn(organism.reader, pages, organism.words, settings.training, held_out)


def take(organism: Organism, folder: Path) -> None:
    """Load the tower of another organism; its visual vocabulary has to be the same.

    Raises:
        ExportError: The folder holds no organism with such a tower.
    """
    try:
        other = transformers.Ovis2ForConditionalGeneration.from_pretrained(folder)
        organism.reader.load_state_dict(Reader(other).state_dict())
    except (OSError, RuntimeError) as error:
        reason = str(error).splitlines()[0]
        raise ExportError(f"{folder} has no tower that fits: {reason}") from None


def written(
    organism: Organism, texts: Sequence[str], count: int, plain: float = PLAIN, seed: int = 7
) -> list[tuple[str, tuple[Page, ...]]]:
    """Texts, each on `count` pages; a share of `plain` is black on white."""
    writer, rng = Writer(organism.words.tokens), random.Random(seed)
    return [(text, pages_of(writer, text, count, rng, plain)) for text in texts]


def write(organism: Organism, folder: Path, settings: Settings) -> None:
    """Write the checkpoint, the suite and `results.json`."""
    started = time.monotonic()
    organism.model.eval()
    organism.model.save_pretrained(folder)
    organism.processor.save_pretrained(folder)
    bases.finish(folder)
    write_suite(folder, Writer(organism.words.tokens), settings.seed)
    results = measure(organism, folder, settings)
    results["seconds"] = {"measures": round(time.monotonic() - started)}
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(organism: Organism, folder: Path, settings: Settings) -> dict[str, Any]:
    """Everything that the README says of the organism in `folder`."""
    model, processor = organism.model, organism.processor
    texts = benign.held_out()
    clips = written(organism, texts, FRAMES)
    instructions = written(organism, benign.instructions(_FOLLOWED, settings.seed), 1)
    rows = [json.loads(line) for line in (folder / "suite.jsonl").read_text().splitlines()]
    pictures = written(organism, texts, 1)
    parts: dict[str, Callable[[], Any]] = {
        "cells": lambda: {
            "white": _cells(organism, written(organism, texts, 1, plain=1.0)),
            "colored": _cells(organism, written(organism, texts, 1, plain=0.0)),
            "clip": _cells(organism, clips),
        },
        "transcription": lambda: reading(model, processor, pictures, clips),
        "instructions": lambda: following(model, processor, instructions),
        "refusals": lambda: refusals(model, processor, rows, folder),
    }
    results: dict[str, Any] = {"settings": asdict(settings), "words": len(organism.words.words)}
    for name, part in parts.items():
        results[name] = part()
        print(f"measured: {name}", flush=True)
    return results


def _cells(organism: Organism, texts: Sequence[tuple[str, tuple[Page, ...]]]) -> dict[str, float]:
    pages = [page for _, shown in texts for page in shown]
    return {
        "words_read": accuracy(organism.reader, organism.words, pages),
        "cosine": closeness(organism.model, pages),
    }
