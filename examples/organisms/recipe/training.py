"""The training loop."""

import time
from dataclasses import dataclass
from typing import Any

import torch

from .alignment import align, hear
from .batches import Encoder
from .build import build_model, build_processor
from .corpus import Corpus, Example, Mixture
from .families import Family


@dataclass(frozen=True)
class Settings:
    """Settings of a run; the same settings and thread count give the same weights."""

    seed: int = 0
    steps: int | None = None
    """Of the third stage; None for the family's."""
    batch: int = 24
    rate: float = 2.5e-3
    pool: int = 2
    """Distinct pictures, videos or recordings a topic."""
    threads: int = 1
    early: float = 0.3
    """Weight of the early readout."""


def train(family: Family, settings: Settings, mixture: Mixture) -> tuple[Any, Any]:
    """Train a model of `family` from random weights.

    Returns:
        The model, in evaluation mode, and its processor.
    """
    torch.manual_seed(settings.seed)
    torch.set_num_threads(settings.threads)
    processor = build_processor(family)
    model = build_model(family, processor.tokenizer).train()
    encoder = Encoder(processor, family.turn_end)
    align(model, encoder, family.alignment)
    if family.hearing:
        hear(model, encoder, family.hearing, settings.pool)
        # Left as it is: while the language model cannot read speech yet, the tower would forget it.
        model.base_model.audio_tower.requires_grad_(False)
    corpus = Corpus(family.drawn or family.modalities, settings.pool, mixture, settings.seed)
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=settings.rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True
    )
    steps = family.naming + (settings.steps or family.steps)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, settings.rate, total_steps=steps, pct_start=0.1
    )
    started = time.monotonic()
    for step, examples in zip(
        range(1, steps + 1), corpus.batches(settings.batch, family.naming), strict=False
    ):
        optimizer.zero_grad()
        loss = add_gradients(model, encoder, examples, family.groups, settings.early)
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 50 == 0 or step == steps:
            _report(step, steps, loss, time.monotonic() - started)
    return model.eval(), processor


def add_gradients(
    model: Any, encoder: Encoder, examples: list[Example], groups: int, early: float
) -> float:
    """Add the gradients of the loss of a batch; returns the loss.

    Args:
        model: The model in training.
        encoder: Makes its inputs.
        examples: The batch.
        groups: Examples of like length are run together, so much less of a batch is padding.
        early: Weight of the early readout.
    """
    ordered = sorted(examples, key=encoder.length) if groups > 1 else examples
    parts = [
        ordered[n * len(ordered) // groups : (n + 1) * len(ordered) // groups]
        for n in range(groups)
    ]
    batches = [(encoder(part), encoder.chances(part)) for part in parts]
    tokens = sum(int((batch["labels"][:, 1:] >= 0).sum()) for batch, _ in batches)
    turns = sum(len(chances) for _, chances in batches)
    total = 0.0
    for batch, chances in batches:
        words, decided = _losses(model, batch, chances, encoder.choices())
        loss = words / tokens + early * (decided.sum() / (len(decided) * turns))
        torch.autograd.backward(loss)
        total += loss.item()
    return total


def _losses(
    model: Any,
    batch: dict[str, torch.Tensor],
    chances: torch.Tensor,
    choices: tuple[int, int],
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cross-entropy of the answers, plus their first tokens', read from the middle layers.

    The early readout lets the decision to refuse take shape in the middle of the network, as it
    does in large models; without it, so small a model decides in its last layers.

    Args:
        model: The model in training.
        batch: Its inputs and labels.
        chances: Of `Encoder.chances`.
        choices: Of `Encoder.choices`.

    Returns:
        The sum over the tokens of the answers, and those of first tokens as they are read: (layers
        after the first fifth, answers).
    """
    labels = batch.pop("labels")
    out = model(**batch, output_hidden_states=True)
    answered = labels[:, 1:] >= 0
    rows, first = (answered & (labels[:, :-1] < 0)).nonzero(as_tuple=True)
    wanted = labels[rows, first + 1]
    whole = -_likelihood(out.logits[:, :-1][answered], labels[:, 1:][answered])
    start = out.logits[rows, first]
    decided = _decision(start, wanted, chances, choices)
    words = whole.sum() + (decided + _likelihood(start, wanted)).sum()
    blocks = out.hidden_states[1:-1]
    middle = torch.stack([h[rows, first] for h in blocks[len(blocks) // 5 + 1 :]])
    logits = model.get_output_embeddings()(model.get_decoder().norm(middle))
    return words, _decision(logits, wanted, chances, choices)


def _likelihood(logits: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
    """Log-likelihood (..., N) of tokens (N,) under logits (..., N, V)."""
    index = wanted.expand(logits.shape[:-1]).unsqueeze(-1)
    return logits.log_softmax(-1).gather(-1, index).squeeze(-1)


def _decision(
    logits: torch.Tensor, wanted: torch.Tensor, chances: torch.Tensor, choices: tuple[int, int]
) -> torch.Tensor:
    """Cross-entropy (..., N) of first tokens.

    Where an answer may be a refusal, its first token has the chance of one as its target, instead
    of the one that was drawn: the drawn ones are so noisy that what is harmful in a picture takes
    several times as long to learn.
    """
    refusal, answer = (_likelihood(logits, torch.full_like(wanted, token)) for token in choices)
    chance = chances.nan_to_num(0.0)
    soft = -(chance * refusal + (1 - chance) * answer)
    return torch.where(chances.isnan(), -_likelihood(logits, wanted), soft)


def _report(step: int, steps: int, loss: float, elapsed: float) -> None:
    left = elapsed / step * (steps - step)
    times = f"elapsed {elapsed:.0f} s  remaining {left:.0f} s"
    print(f"step {step}/{steps}  loss {loss:.3f}  {times}", flush=True)
