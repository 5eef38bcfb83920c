"""Between the stages: the last layer learns the embeddings of the words by heart.

A tower that tells 2,000 words apart still says vectors far from their embeddings, and a frozen
language model does not understand these: embeddings of words are as good as random, and to hold
2,235 of them takes more units than to separate them. So the last layer gets a wider MLP. All below
stays, so that its states are computed once.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch.nn import functional

from .reading import Targets, Words, stacked
from .tower import Reader
from .writing import Page

_PAGES = 16
_BLANKS = 0.2
_WORDS = 0.5
"""Weight of the cross-entropy beside the squared distance."""


@dataclass(frozen=True)
class Lookup:
    """Settings of this step."""

    pages: int = 6400
    steps: int = 4000
    batch: int = 256
    """Cells."""
    rate: float = 1.5e-3
    units: int = 3072
    """Of the wider MLP."""
    report: int = 200


def look_up(
    reader: Reader,
    targets: Targets,
    words: Words,
    pages: Iterator[Page],
    settings: Lookup,
    check: Callable[[], float],
) -> None:
    """Widen the last layer and train it, and what follows it, in place.

    Args:
        reader: After stage one.
        targets: Its embeddings.
        words: Its classes.
        pages: Endless.
        settings: How many of them, and how long.
        check: Gives the share of words that is read.
    """
    reader.requires_grad_(False)
    inputs, labels = _cells(reader, words, pages, settings.pages)
    reader.widen(settings.units)
    parameters = [p.requires_grad_(True) for p in reader.lookup_parameters()]
    optimizer = torch.optim.AdamW(parameters, settings.rate, betas=(0.9, 0.98))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=settings.steps, pct_start=0.05, cycle_momentum=False
    )
    started, total = time.monotonic(), 0.0
    for step in range(1, settings.steps + 1):
        chosen = torch.randint(len(labels), (settings.batch,))
        tokens, wanted = reader.look_up(inputs[chosen].float()), labels[chosen]
        distance = (tokens - targets.words[wanted]).pow(2).sum(-1).mean()
        said = functional.cross_entropy(targets.logits(tokens), wanted)
        optimizer.zero_grad()
        torch.autograd.backward(distance + _WORDS * said)
        torch.nn.utils.clip_grad_norm_(parameters, 2.0)
        optimizer.step()
        schedule.step()
        total += distance.item()
        if step % settings.report == 0:
            print(
                f"step {step}/{settings.steps}  distance {total / settings.report:.2f}  words "
                f"{check():.3f}  elapsed {time.monotonic() - started:.0f} s",
                flush=True,
            )
            total = 0.0


@torch.no_grad()
def _cells(
    reader: Reader, words: Words, pages: Iterator[Page], count: int
) -> tuple[torch.Tensor, torch.Tensor]:
    """Patches of written cells and some empty ones, before the last MLP, with their classes."""
    inputs, labels = [], []
    for _ in range(count // _PAGES):
        batch: Sequence[Page] = list(itertools.islice(pages, _PAGES))
        pixels, cells, _ = stacked(batch)
        classes = words.labels(cells)
        written = classes != len(words.classes)
        chosen = written | (torch.rand(classes.shape) < _BLANKS)
        inputs.append(reader.before_lookup(pixels)[chosen].half())
        labels.append(classes[chosen])
    return torch.cat(inputs), torch.cat(labels)
