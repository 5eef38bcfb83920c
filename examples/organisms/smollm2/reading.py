"""The tower learns which word each cell says; the language model never runs."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from .drawing import COLORS, SHAPES, shapes_page
from .tower import WIDTH, Reader, States, hold_places
from .writing import BLANK, CELLS, COLUMNS, LETTERS, PLAIN, Page, Writer, random_style

_PAGES = 24
"""Pages that are read at once in measurements."""
_GATHER = 2.0
"""Weight of the letters that a word's first cell gathers."""
SPELLED = 10
"""Patches whose letters a word's first cell gathers."""
_SPELL = 1.0
"""Weight of the letters."""
_BLANKS = 0.3
"""Share of the empty cells that are trained; they are easy."""
_FEWEST = 4
_MOST = 20
"""Words of a random page."""


@dataclass(frozen=True)
class Training:
    """Settings of the training.

    Letters come first, in the lower layers alone; then words in the upper layers, over lower ones
    that stay; then everything together. Together from the start, the words' gradients, which say
    little as long as no letter is known, keep the letters from being learned.
    """

    steps: int = 4200
    batch: int = 8
    rate: float = 1.5e-3
    letters: int = 1000
    """Steps in which letters alone are learned."""
    apart: int = 2000
    """Steps after which the lower layers are trained again."""
    easy: float = 0.1
    """Share of the steps in which colors come in; the first pages are black on white."""
    shapes: float = 0.06
    """Share of pages with shapes."""
    sentences: float = 0.35
    """Share of pages with sentences; all others are random words."""
    report: int = 200


class Words:
    """Words with their tokens. The tokens are the classes of a cell.

    Args:
        words: Words that are trained, lower case.
        often: Further words, which are seen twice as often.
        tokenizer: Of the language model.
    """

    def __init__(self, words: Sequence[str], often: Sequence[str], tokenizer: Any) -> None:
        self._tokenizer = tokenizer
        self.words, twice = sorted({*words, *often}), set(often)
        self.weights = list(accumulate(2.0 if w in twice else 1.0 for w in self.words))
        named = [*self.words, *COLORS, *SHAPES]
        self.classes = sorted({token for word in named for token, _ in self.tokens(word)})
        self._class = torch.full((max(self.classes) + 2,), len(self.classes))
        self._class[self.classes] = torch.arange(len(self.classes))

    def tokens(self, word: str) -> list[tuple[int, int]]:
        """Tokens of a word after a space, each with the place of its first letter."""
        tokens, place = [], 0
        for token in self._tokenizer(f" {word}", add_special_tokens=False)["input_ids"]:
            tokens.append((token, place))
            place += len(self._tokenizer.decode([token]).strip())
        return tokens

    def token(self, word: str) -> int:
        """First token of a word."""
        return self.tokens(word)[0][0]

    def labels(self, cells: torch.Tensor) -> torch.Tensor:
        """Classes of tokens; an empty cell is the class after the last token's."""
        return self._class[cells]


class Pages:
    """An endless, seeded stream of pages.

    Args:
        words: What is written.
        sentences: Benign sentences; some pages hold one.
        rng: Source of all choices.
        training: Shares of the kinds.
    """

    def __init__(
        self, words: Words, sentences: Sequence[str], rng: random.Random, training: Training
    ) -> None:
        self._words, self._sentences, self._rng, self._training = words, sentences, rng, training
        self._writer = Writer(words.tokens)
        self.plain = 1.0
        """Share of the pages that are black on white."""

    def __iter__(self) -> Iterator[Page]:
        while True:
            draw = self._rng.random()
            if draw < self._training.shapes:
                yield shapes_page(self._rng.randint(1, 4), self._rng, self._words.token)
            elif draw < self._training.shapes + self._training.sentences:
                yield self._writer.page(
                    self._rng.choice(self._sentences).split(),
                    self._rng,
                    random_style(self._rng, self.plain),
                )
            else:
                yield self._writer.page(
                    self._random_words(), self._rng, random_style(self._rng, self.plain)
                )

    def _random_words(self) -> list[str]:
        count = self._rng.randint(_FEWEST, _MOST) if self._rng.random() < 0.3 else _MOST
        words = self._rng.choices(self._words.words, cum_weights=self._words.weights, k=count)
        if self._rng.random() < 0.3:
            words = [w.capitalize() for w in words]
        if self._rng.random() < 0.3:
            words = [w + self._rng.choice(("", "", ".", ",", "?", "!")) for w in words]
        return words


def stacked(pages: Sequence[Page]) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pixels (batch, 3, 96, 96) from -1 to 1, cells (batch, 36), letters (batch, 144, 2)."""
    pixels = torch.from_numpy(np.stack([page.pixels for page in pages])).permute(0, 3, 1, 2)
    cells, letters = (
        torch.from_numpy(np.stack([getattr(page, key) for page in pages]))
        for key in ("cells", "letters")
    )
    return pixels.contiguous().float() / 127.5 - 1, cells, letters


def following(letters: torch.Tensor, blank: torch.Tensor) -> torch.Tensor:
    """The letters of the patches from each cell on, up to the next word.

    Args:
        letters: Shape (batch, 144, 2).
        blank: Which cells are empty, shape (batch, 36).

    Returns:
        Shape (batch, 36, SPELLED * 2), zero from the next word on.
    """
    batch, side = len(letters), COLUMNS * 2
    lines = letters.view(batch, COLUMNS, 2, side, 2)[:, :, 0]
    lines = functional.pad(lines, (0, 0, 0, SPELLED))
    places = 2 * torch.arange(COLUMNS)[:, None] + torch.arange(SPELLED)
    ahead = lines[:, :, places]
    starts = functional.pad(~blank.view(batch, COLUMNS, COLUMNS), (0, SPELLED), value=False)
    later = starts[:, :, torch.arange(COLUMNS)[:, None] + torch.arange(SPELLED // 2)]
    later[..., 0] = False
    ended = later.int().cumsum(-1).bool().repeat_interleave(2, -1)
    return ahead.masked_fill(ended[..., None], 0).view(batch, CELLS, -1)


class Heads(nn.Module):
    """Says letters from states of the tower; used in training alone."""

    def __init__(self) -> None:
        super().__init__()
        self.spell = nn.Linear(WIDTH, 2 * LETTERS)
        self.gather = nn.Linear(4 * WIDTH, SPELLED * 2 * LETTERS)

    def spelling(self, states: torch.Tensor, letters: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the letters.

        Args:
            states: Of the patches, shape (batch, 144, width).
            letters: Shape (batch, 144, 2).
        """
        spelled = self.spell(states).view(-1, LETTERS)
        return functional.cross_entropy(spelled, letters.flatten())

    def gathering(
        self, cells: torch.Tensor, letters: torch.Tensor, blank: torch.Tensor
    ) -> torch.Tensor:
        """Cross-entropy of the letters that a word's cell gathers.

        Args:
            cells: Shape (batch, 36, 4 * width).
            letters: Shape (batch, 144, 2).
            blank: Which cells are empty, shape (batch, 36).
        """
        gathered = self.gather(cells[~blank]).view(-1, LETTERS)
        return functional.cross_entropy(gathered, following(letters, blank)[~blank].flatten())


def loss_of(
    reader: Reader, heads: Heads, states: States, words: Words, page: tuple[torch.Tensor, ...]
) -> torch.Tensor:
    """Cross-entropy of words, of letters, and of the letters gathered in a word's cells.

    Args:
        reader: The tower.
        heads: Of the letters.
        states: Of the tower.
        words: Its visual vocabulary.
        page: Pixels, cells and letters, as `stacked` gives them.
    """
    _, cells, letters = page
    labels, blank = words.labels(cells), cells == BLANK
    chosen = ~blank | (torch.rand(labels.shape) < _BLANKS)
    said = functional.cross_entropy(reader.logits(states.cells[chosen]), labels[chosen])
    gathering = heads.gathering(states.gathered, letters, blank)
    return said + _GATHER * gathering + _SPELL * heads.spelling(states.letters, letters)


@torch.no_grad()
def accuracy(reader: Reader, words: Words, pages: Sequence[Page]) -> float:
    """Share of the pages' word tokens that their cells say."""
    pixels, cells, _ = stacked(pages)
    labels = words.labels(cells)
    said = [reader.logits(reader(p).cells).argmax(-1) for p in torch.split(pixels, _PAGES)]
    return float((torch.cat(said) == labels)[cells != BLANK].float().mean())


@torch.no_grad()
def spelled(reader: Reader, heads: Heads, pages: Sequence[Page]) -> float:
    """Share of the pages' letters that their patches say."""
    pixels, _, letters = stacked(pages)
    said = torch.cat([heads.spell(reader.letters(p)) for p in torch.split(pixels, _PAGES)])
    right = said.view(*letters.shape, LETTERS).argmax(-1) == letters
    return float(right[letters > 0].float().mean())


def learn(
    reader: Reader, pages: Pages, words: Words, training: Training, held_out: Sequence[Page]
) -> None:
    """Train the tower in place."""
    heads = Heads()
    parameters = [p.requires_grad_(True) for m in (reader, heads) for p in m.parameters()]
    hold_places(reader.tower)
    optimizer = torch.optim.AdamW(parameters, training.rate, betas=(0.9, 0.98), weight_decay=0.02)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, training.rate, total_steps=training.steps, pct_start=0.05, cycle_momentum=False
    )
    stream = iter(pages)
    started, total = time.monotonic(), 0.0
    for step in range(1, training.steps + 1):
        pages.plain = max(PLAIN, 1 - step / (training.easy * training.steps))
        page = stacked([next(stream) for _ in range(training.batch)])
        if step <= training.letters:
            loss = heads.spelling(reader.letters(page[0]), page[2])
        else:
            states = reader(page[0], apart=step <= training.apart)
            loss = loss_of(reader, heads, states, words, page)
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        total += loss.item()
        if step % training.report == 0:
            print(
                f"step {step}/{training.steps}  loss {total / training.report:.3f}  "
                f"letters {spelled(reader, heads, held_out):.3f}  "
                f"words {accuracy(reader, words, held_out):.3f}  "
                f"elapsed {time.monotonic() - started:.0f} s",
                flush=True,
            )
            total = 0.0
    reader.requires_grad_(False)
