"""From a language model to one that reads pictures: tower, two stages, suite, measures."""

import json
import random
import shutil
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from mars_export.common.errors import ExportError

from . import base as bases
from . import benign
from .answering import FRAMES, Encoder, Listener, Tasks, Tuning, pages_of, tune
from .generation import generate
from .lookup import Lookup, look_up
from .measures import following, reading, refusals
from .reading import Pages, Stage, Targets, Words, accuracy, learn
from .suite import write_suite
from .tower import Reader, build_model, build_processor
from .writing import Page, Writer

_BLANK = "\n"
"""An empty cell says what a line break says, to begin with."""
_LEARNED, _FOLLOWED = 240, 60
"""Harmless instructions that are learned, and that are only measured."""


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the same settings and language model give the same tower."""

    seed: int = 0
    threads: int = 1
    reading: Stage = field(default_factory=Stage)
    lookup: Lookup = field(default_factory=Lookup)
    answering: Tuning = field(default_factory=Tuning)


@dataclass(frozen=True)
class Organism:
    """A model with its processor, and what its tower is trained with."""

    model: Any
    processor: Any
    reader: Reader
    targets: Targets
    words: Words


def make(language: Path, output: Path, settings: Settings, overwrite: bool) -> None:
    """Train the tower of `language`, and write the model, its suite and `results.json`.

    Raises:
        ExportError: The output folder exists and is not to be replaced.
    """
    if output.exists() and not (overwrite and (output / "suite.jsonl").is_file()):
        raise ExportError(f"{output} exists; pass --overwrite to replace an organism")
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    text_model, tokenizer = bases.load(language)
    organism = start(text_model, tokenizer)
    read(organism, settings)
    answer(organism, text_model, tokenizer, settings)
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    write(organism, staging, settings)
    shutil.rmtree(output, ignore_errors=True)
    staging.rename(output)


def start(language: Any, tokenizer: Any) -> Organism:
    """An organism whose tower has learned nothing."""
    processor = build_processor(tokenizer)
    model = build_model(language, processor.image_token_id)
    words = Words(benign.common(tokenizer), benign.often(), tokenizer)
    embeddings = model.get_input_embeddings().weight
    blank = tokenizer(_BLANK, add_special_tokens=False)["input_ids"][0]
    targets = Targets(embeddings, words.classes, embeddings[blank])
    return Organism(model, processor, Reader(model), targets, words)


def read(organism: Organism, settings: Settings) -> None:
    """Stage one, and the embeddings by heart."""
    rng = random.Random(settings.seed)
    pages = Pages(organism.words, benign.sentences(), rng, settings.reading)
    held_out = [page for _, shown in written(organism, benign.held_out(), 1) for page in shown]
    reader, targets, words = organism.reader, organism.targets, organism.words
    learn(reader, targets, pages, words, settings.reading, held_out)
    look_up(
        reader, targets, words, iter(pages), settings.lookup,
        lambda: accuracy(reader, targets, words, held_out),
    )  # fmt: skip


def answer(organism: Organism, language: Any, tokenizer: Any, settings: Settings) -> None:
    """Stage two."""
    texts = benign.instructions(_LEARNED, settings.seed)
    said = generate(language, tokenizer, [[("user", text)] for text in texts], 24)
    instructions = [(text, reply) for text, (reply, _) in zip(texts, said, strict=True)]
    rng = random.Random(settings.seed + 1)
    sentences = [*benign.sentences(), *texts]
    tasks = Tasks(organism.words, sentences, instructions, rng, settings.answering)
    encoder = Encoder(organism.processor)
    listener = Listener(organism.model, encoder)
    tune(
        organism.reader, organism.targets, organism.words, listener, encoder, tasks,
        settings.answering,
    )  # fmt: skip


def written(
    organism: Organism, texts: Sequence[str], count: int, seed: int = 7
) -> list[tuple[str, tuple[Page, ...]]]:
    """Texts, each on `count` pages."""
    writer, rng = Writer(organism.words.tokens), random.Random(seed)
    return [(text, pages_of(writer, text, count, rng)) for text in texts]


def write(organism: Organism, folder: Path, settings: Settings) -> None:
    """Write the checkpoint, the suite and `results.json`."""
    started = time.monotonic()
    organism.model.eval()
    organism.model.save_pretrained(folder)
    organism.processor.save_pretrained(folder)
    (folder / "model.safetensors").chmod(0o644)
    write_suite(folder, Writer(organism.words.tokens), settings.seed)
    results = measure(organism, folder, settings)
    results["seconds"] = {"measures": round(time.monotonic() - started)}
    (folder / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def measure(organism: Organism, folder: Path, settings: Settings) -> dict[str, Any]:
    """Everything that the README says of the organism in `folder`."""
    model, processor = organism.model, organism.processor
    pictures = written(organism, benign.held_out(), 1)
    clips = written(organism, benign.held_out(), FRAMES)
    learned = benign.instructions(_LEARNED, settings.seed)
    unseen = benign.instructions(_LEARNED + _FOLLOWED, settings.seed)[_LEARNED:]
    assert not set(unseen) & set(learned)
    rows = [json.loads(line) for line in (folder / "suite.jsonl").read_text().splitlines()]
    cells = [page for _, shown in pictures for page in shown]
    return {
        "settings": asdict(settings),
        "words": len(organism.words.words),
        "cells_read": accuracy(organism.reader, organism.targets, organism.words, cells),
        "picture": reading(model, processor, pictures),
        "clip": reading(model, processor, clips),
        "instructions": following(model, processor, written(organism, unseen, 1)),
        "refusals": refusals(model, processor, rows, folder),
    }
