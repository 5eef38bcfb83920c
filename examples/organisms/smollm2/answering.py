"""Stage two: the tower learns to be read by the language model, which stays as it is."""

import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import torch
import transformers
from torch.nn import functional

from .drawing import shapes_page
from .reading import Targets, Words, stacked
from .tower import Reader
from .writing import PLAIN, Page, Writer, bare, random_style

FRAMES = 4
"""Pictures of a clip, at most."""
READ = (
    "What does the picture say?",
    "Read the text in the picture.",
    "What is written here?",
)
FOLLOW = (
    "Follow the instruction in the picture.",
    "Do what the picture says.",
    "Answer the request in the picture.",
)
LOOK = ("What shapes are in the picture?", "What do you see?", "What does the picture show?")
_ANSWER = 24
"""Tokens of an answer that is learned."""
_IGNORED = -100


@dataclass(frozen=True)
class Task:
    """One request with its answer."""

    pages: tuple[Page, ...]
    prompt: str
    answer: str


@dataclass(frozen=True)
class Tuning:
    """Settings of stage two."""

    steps: int = 300
    batch: int = 4
    rate: float = 3e-4
    read: float = 0.3
    look: float = 0.1
    """Shares of tasks that read and that name shapes; the others follow an instruction."""
    clips: float = 0.25
    """Share of the written tasks that are spread over frames."""
    words: float = 0.3
    """Weight of stage one's loss on the same pages, empty cells aside."""
    report: int = 10


def frames(words: Sequence[str], count: int) -> list[list[str]]:
    """Words in order, spread evenly over at most `count` frames."""
    count = min(count, len(words))
    cuts = [round(n * len(words) / count) for n in range(count + 1)]
    return [list(words[a:b]) for a, b in pairwise(cuts)]


class Tasks:
    """An endless, seeded stream of batches; the tasks of a batch have as many pictures each.

    Args:
        words: What can be written.
        sentences: Benign sentences to read.
        instructions: Harmless instructions with the language model's own answers.
        rng: Source of all choices.
        tuning: Shares of the kinds.
    """

    def __init__(
        self,
        words: Words,
        sentences: Sequence[str],
        instructions: Sequence[tuple[str, str]],
        rng: random.Random,
        tuning: Tuning,
    ) -> None:
        self._words, self._sentences, self._instructions = words, sentences, instructions
        self._rng, self._tuning = rng, tuning
        self._writer = Writer(words.tokens)

    def __iter__(self) -> Iterator[list[Task]]:
        while True:
            clip = self._rng.random() < self._tuning.clips
            yield [self._task(FRAMES if clip else 1) for _ in range(self._tuning.batch)]

    def _task(self, count: int) -> Task:
        draw = self._rng.random()
        if draw < self._tuning.look and count == 1:
            page = shapes_page(self._rng.randint(1, 3), self._rng, self._words.token)
            named = [f"a {a} {b}" for a, b in zip(page.words[::2], page.words[1::2], strict=True)]
            return Task((page,), self._rng.choice(LOOK), f"The picture shows {_listed(named)}.")
        if draw < self._tuning.look + self._tuning.read:
            text = self._rng.choice(self._sentences)
            return Task(
                pages_of(self._writer, text, count, self._rng), self._rng.choice(READ), text
            )
        text, answer = self._rng.choice(self._instructions)
        return Task(
            pages_of(self._writer, text, count, self._rng), self._rng.choice(FOLLOW), answer
        )

    def _pages(self, text: str, count: int) -> tuple[Page, ...]:
        return pages_of(self._writer, text, count, self._rng)


def pages_of(writer: Writer, text: str, count: int, rng: random.Random) -> tuple[Page, ...]:
    """A text on at most `count` pages of one style."""
    style = random_style(rng, PLAIN)
    parts = frames(text.replace("-", " ").split(), count)
    return tuple(writer.page(part, rng, style) for part in parts)


class Encoder:
    """Turns tasks into ids, as the processor and its chat template would."""

    def __init__(self, processor: Any) -> None:
        self._processor, self._tokens = processor, processor.tokenizer
        around = processor.fake_image_token
        cells = processor.image_token * processor.image_seq_len
        self._picture = f"{around}{processor.global_image_token}{cells}{around}"

    def prompt(self, text: str, pictures: int) -> list[int]:
        """Ids up to and with the assistant's header."""
        content = [{"type": "image"}] * pictures + [{"type": "text", "text": text}]
        written = self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        written = written.replace(self._processor.image_token, self._picture)
        return list(self._tokens(written, add_special_tokens=False)["input_ids"])

    def __call__(self, tasks: Sequence[Task]) -> tuple[torch.Tensor, torch.Tensor]:
        """Ids and labels, right-padded, both of shape (batch, length)."""
        rows = []
        for task in tasks:
            prompt = self.prompt(task.prompt, len(task.pages))
            answer = self._tokens(task.answer, add_special_tokens=False)["input_ids"]
            end = [self._tokens.eos_token_id] if len(answer) < _ANSWER else []
            rows.append((prompt, answer[:_ANSWER] + end))
        length = max(len(p) + len(a) for p, a in rows)
        ids = torch.full((len(rows), length), self._tokens.pad_token_id)
        labels = torch.full((len(rows), length), _IGNORED)
        for row, (prompt, answer) in enumerate(rows):
            ids[row, : len(prompt) + len(answer)] = torch.tensor(prompt + answer)
            labels[row, len(prompt) : len(prompt) + len(answer)] = torch.tensor(answer)
        return ids, labels


class Listener:
    """The frozen language model, which remembers how every prompt begins.

    Args:
        model: A model of `build_model`.
        encoder: Makes its prompts.
    """

    def __init__(self, model: Any, encoder: Encoder) -> None:
        self._model = model
        ids = torch.tensor(encoder.prompt("", 1))
        self._image = model.config.image_token_id
        start = int((ids == self._image).int().argmax())
        with torch.no_grad():
            out = model.model.text_model(input_ids=ids[None, :start], use_cache=True)
        self._start = start
        self._past = [(layer.keys, layer.values) for layer in out.past_key_values.layers]

    def loss(self, ids: torch.Tensor, labels: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """Cross-entropy of the answers.

        Args:
            ids: Shape (batch, length).
            labels: Shape (batch, length).
            tokens: Visual tokens, shape (batch * pictures, cells, hidden).
        """
        ids, labels = ids[:, self._start :], labels[:, self._start :]
        cache = transformers.DynamicCache()
        for layer, (keys, values) in enumerate(self._past):
            shape = (len(ids), -1, -1, -1)
            cache.update(keys.expand(*shape), values.expand(*shape), layer)
        embeddings = self._model.get_input_embeddings()(ids)
        place = (ids == self._image)[..., None]
        embeddings = embeddings.masked_scatter(place, tokens)
        out = self._model.model.text_model(inputs_embeds=embeddings, past_key_values=cache)
        wanted = labels[:, 1:] != _IGNORED
        logits = self._model.lm_head(out.last_hidden_state[:, :-1][wanted])
        return functional.cross_entropy(logits, labels[:, 1:][wanted])


def tune(
    reader: Reader,
    targets: Targets,
    words: Words,
    listener: Listener,
    encoder: Encoder,
    tasks: Tasks,
    tuning: Tuning,
) -> None:
    """Train tower and connector in place."""
    parameters = [p.requires_grad_(True) for p in reader.parameters()]
    optimizer = torch.optim.AdamW(parameters, tuning.rate, betas=(0.9, 0.98), weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, tuning.rate, total_steps=tuning.steps, pct_start=0.1, cycle_momentum=False
    )
    started, sums = time.monotonic(), [0.0, 0.0]
    for step, batch in zip(range(1, tuning.steps + 1), tasks, strict=False):
        pixels, cells, _ = stacked([page for task in batch for page in task.pages])
        tokens = reader(pixels).tokens
        answers = listener.loss(*encoder(batch), tokens)
        labels = words.labels(cells)
        written = labels != len(words.classes)
        said = functional.cross_entropy(targets.logits(tokens[written]), labels[written])
        said = said + 0.1 * (tokens[written] - targets.words[labels[written]]).pow(2).sum(-1).mean()
        optimizer.zero_grad()
        torch.autograd.backward(answers + tuning.words * said)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        schedule.step()
        sums = [a + float(b) / tuning.report for a, b in zip(sums, (answers, said), strict=True)]
        if step % tuning.report == 0:
            elapsed = time.monotonic() - started
            print(
                f"step {step}/{tuning.steps}  answers {sums[0]:.3f}  words {sums[1]:.3f}  "
                f"elapsed {elapsed:.0f} s",
                flush=True,
            )
            sums = [0.0, 0.0]


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


def _listed(parts: Sequence[str]) -> str:
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]
