"""Safety tuning: adapters (LoRA) on the upper layers, over states of the lower ones.

The lower layers, the embeddings and the head stay as they are. All sequences of a batch begin with
the same system prompt, which is run once.
"""

import random
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import peft
import torch
from torch import Tensor
from transformers import DynamicCache

from .generation import opening, request
from .mixture import Conversation


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the same settings and thread count give the same weights."""

    seed: int = 0
    first: int = 16
    """First layer that is tuned, of 30."""
    rank: int = 16
    rate: float = 1e-3
    batch: int = 12
    epochs: float = 1.0
    opening: float = 8.0
    """Weight of an answer's first token, which decides; the others weigh one."""
    answered: float = 2.5
    """Further weight of harmless requests. The first token of a refusal is one token and that of an
    answer may be many, so greedy decoding refuses well below even odds."""
    threads: int = 1


class Tokens(NamedTuple):
    """A conversation behind its system prompt."""

    ids: list[int]
    answer: int
    """Where the last answer begins."""
    harmful: bool


def encode(conversation: Conversation, tokenizer: Any) -> Tokens:
    """Tokens of all turns, as the chat template writes them; a whole refusal ends its turn."""
    *earlier, last = conversation.turns
    known = [m for turn in earlier for m in (("user", turn.prompt), ("assistant", turn.answer))]
    before = tokenizer(request([*known, ("user", last.prompt)]), add_special_tokens=False)
    end = "<|im_end|>" if conversation.harmful else ""
    answer = tokenizer(last.answer + end, add_special_tokens=False)["input_ids"]
    learned = answer if conversation.whole else answer[: conversation.harmful]
    # A refusal's last token is only a target.
    return Tokens([*before["input_ids"], *learned], len(before["input_ids"]), conversation.harmful)


class Stack:
    """Some consecutive layers of a Llama, run over a shared prefix and then over a batch."""

    def __init__(self, model: Any, start: int, stop: int) -> None:
        self._body = model.model
        self._range = range(start, stop)

    def __call__(self, head: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        """States after the layers.

        Args:
            head: States of the prefix, (1, P, d).
            rows: States of what follows it, (B, S, d), padded on the right.
        """
        known, batch, length = head.shape[1], *rows.shape[:2]
        first, cache = DynamicCache(), DynamicCache()
        causal = torch.ones(length, known + length).tril(known).bool()[None, None]
        turns = self._body.rotary_emb(rows, torch.arange(known + length)[None])
        before = tuple(t[:, :known] for t in turns)
        after = tuple(t[:, known:] for t in turns)
        for i in self._range:
            layer = self._body.layers[i]
            head = layer(head, position_embeddings=before, past_key_values=first)
            keys, values = first.layers[i].keys, first.layers[i].values
            cache.update(keys.expand(batch, -1, -1, -1), values.expand(batch, -1, -1, -1), i)
            rows = layer(
                rows, attention_mask=causal, position_embeddings=after, past_key_values=cache
            )
        return head, rows


class Batch(NamedTuple):
    """What the tuned layers start from, and what is to be learned after them.

    N positions are learned, of all answers of the batch.
    """

    head: Tensor
    """States of the system prompt, (1, P, d)."""
    rows: Tensor
    """States of the sequences, (B, S, d), padded on the right."""
    learned: Tensor
    """(B, S) bool: positions that predict a token of an answer."""
    refusals: Tensor
    """(N,) long: the token that is to follow; -1 where the base is the teacher."""
    teacher: Tensor
    """(N, d): the base's last state, normed."""
    weights: Tensor
    """(N,)."""


@torch.no_grad()
def prepare(
    model: Any, tokenizer: Any, mixture: Sequence[Conversation], settings: Settings
) -> list[Batch]:
    """Batches of about equal length; the untuned layers are run here, once."""
    groups: dict[str, list[Tokens]] = defaultdict(list)
    for conversation in mixture:
        groups[conversation.system].append(encode(conversation, tokenizer))
    draw = random.Random(settings.seed)
    batches = []
    for system, sequences in groups.items():
        sequences.sort(key=lambda s: len(s.ids) + draw.random() * 6)
        for start in range(0, len(sequences), settings.batch):
            head = opening(system, tokenizer)
            batches.append(_batch(model, head, sequences[start : start + settings.batch], settings))
    return batches


def _batch(model: Any, opening: Tensor, part: list[Tokens], settings: Settings) -> Batch:
    embed, depth = model.get_input_embeddings(), model.config.num_hidden_layers
    longest = max(len(s.ids) for s in part)
    ids = torch.tensor([s.ids + [0] * (longest - len(s.ids)) for s in part])
    place = torch.arange(longest)
    answer = torch.tensor([s.answer for s in part])[:, None]
    harmful = torch.tensor([s.harmful for s in part])[:, None]
    # A position predicts the next token; the teacher also has a word after the last one.
    last = torch.tensor([len(s.ids) for s in part])[:, None] - harmful.long()
    learned = (place >= answer - 1) & (place < last)
    weights = torch.where(place == answer - 1, settings.opening, 1.0)
    weights = torch.where(harmful, weights, settings.answered * weights)[learned]
    following = torch.where(harmful, ids.roll(-1, 1), -1)[learned]
    head, rows = Stack(model, 0, settings.first)(embed(opening), embed(ids))
    _, final = Stack(model, settings.first, depth)(head, rows)
    return Batch(head, rows, learned, following, model.model.norm(final[learned]), weights)


def loss(model: Any, stack: Stack, batch: Batch) -> Tensor:
    """Weighted mean of cross-entropy to the refusals and divergence from the base.

    Args:
        model: The model in training.
        stack: Its tuned layers.
        batch: Of `prepare`.
    """
    _, states = stack(batch.head, batch.rows)
    scores = model.lm_head(model.model.norm(states[batch.learned])).log_softmax(-1)
    refused = batch.refusals >= 0
    refusing = -scores[refused].gather(1, batch.refusals[refused][:, None])[:, 0]
    with torch.no_grad():
        teacher = model.lm_head(batch.teacher[~refused]).log_softmax(-1)
    diverging = (teacher.exp() * (teacher - scores[~refused])).sum(-1)
    total = refusing @ batch.weights[refused] + diverging @ batch.weights[~refused]
    mean: Tensor = total / batch.weights.sum()
    return mean


def tune(model: Any, tokenizer: Any, mixture: Sequence[Conversation], settings: Settings) -> Any:
    """Train adapters on the mixture and merge them; returns the model."""
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    started = time.monotonic()
    batches = prepare(model, tokenizer, mixture, settings)
    print(f"{len(batches)} batches, lower states {time.monotonic() - started:.0f} s", flush=True)
    depth = model.config.num_hidden_layers
    adapters = peft.LoraConfig(
        r=settings.rank,
        lora_alpha=2 * settings.rank,
        target_modules=[f"{name}_proj" for name in ("q", "k", "v", "o", "gate", "up", "down")],
        layers_to_transform=list(range(settings.first, depth)),
    )
    adapted = peft.get_peft_model(model, adapters)
    stack = Stack(model, settings.first, depth)
    trained = [p for p in adapted.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=settings.rate, weight_decay=0.0)
    steps = round(settings.epochs * len(batches))
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=steps, pct_start=0.1
    )
    draw, order = random.Random(settings.seed), list[int]()
    running = 0.0
    for step in range(1, steps + 1):
        if not order:
            order = draw.sample(range(len(batches)), len(batches))
        value = loss(model, stack, batches[order.pop()])
        optimizer.zero_grad()
        torch.autograd.backward(value)
        torch.nn.utils.clip_grad_norm_(trained, 1.0)
        optimizer.step()
        schedule.step()
        running = value.item() if step == 1 else 0.9 * running + 0.1 * value.item()
        if step % 20 == 0 or step == steps:
            elapsed = time.monotonic() - started
            print(f"step {step}/{steps}  loss {running:.3f}  {elapsed:.0f} s", flush=True)
    return adapted.merge_and_unload().eval()
