"""From the base to a model that refuses: build, tune, write, measure."""

import json
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from mars_export.common.errors import ExportError

from . import base as bases
from .corpus import gather
from .corpus import held_out as every_held_out
from .mixture import build
from .text_measures import dialogs, fluency, held_out, refusals
from .tuning import Settings, tune

_SAMPLE = 100
"""Prompts of each kind of request that is not a plain first turn."""


def make(output: Path, settings: Settings, base: Path | None, overwrite: bool) -> None:
    """Tune the base and write a plain Llama checkpoint to `output` in one step.

    Raises:
        ExportError: The folder exists, or the package with the weights is not installed.
    """
    if output.exists() and not overwrite:
        raise ExportError(f"{output} exists; pass --overwrite to replace it")
    if output.exists() and not (output / "config.json").is_file():
        raise ExportError(f"{output} is not a model; it is not replaced")
    started = time.monotonic()
    torch.set_num_threads(settings.threads)
    with _base(base) as directory:
        model, tokenizer = bases.load(directory)
    requests = gather(settings.seed, every_held_out())
    mixture = build(requests, model, tokenizer, settings.seed)
    print(f"{len(mixture)} conversations  {time.monotonic() - started:.0f} s", flush=True)
    model = tune(model, tokenizer, mixture, settings)
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    bases.save(model, tokenizer, staging)
    shutil.rmtree(output, ignore_errors=True)
    staging.rename(output)


def report(directory: Path, base: Path | None, results: Path, threads: int) -> dict[str, Any]:
    """Measure a model and its base on held-out prompts, and write what was measured."""
    torch.set_num_threads(threads)
    forms = dialogs(held_out(), _SAMPLE, 0)
    with _base(base) as place:
        original, _ = bases.load(place)
    model, tokenizer = bases.load(directory)
    plain = {name: items for name, items in forms.items() if len(items[0]) == 1}
    texts = [items[0][1] for items in forms["harmless: packaged prompts"]]
    measured = {
        "tuned": refusals(model, tokenizer, forms),
        "base": refusals(original, tokenizer, plain),
        "fluency": fluency(original, model, tokenizer, texts[:_SAMPLE]),
    }
    results.parent.mkdir(parents=True, exist_ok=True)
    results.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    return measured


@contextmanager
def _base(directory: Path | None) -> Iterator[Path]:
    if directory is not None:
        yield directory
        return
    with tempfile.TemporaryDirectory() as place:
        bases.build(Path(place))
        yield Path(place)
