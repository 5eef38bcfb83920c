"""The first stage of training: tokens of pictures and speech that look like the words of it."""

from typing import Any

import numpy as np
import torch

from .batches import Encoder
from .corpus import NUMBERS, Medium
from .speech import RATE, recording
from .topics import HARMFUL, HARMLESS, MODIFIERS, Topic

_HALF = 2
"""Visual tokens of each half of a picture."""
_LOGIT = 16.0
_QUIET = 8
"""Recordings of nothing in a batch of speech."""
_BATCH, _LEARNING_RATE = 64, 3e-3


def align(model: Any, encoder: Encoder, steps: int) -> None:
    """Train the vision tower and its projector toward the embeddings of words.

    Among all embeddings, the upper two tokens of a picture come closest to the first two of its
    modifier, the lower two to those of its noun. The language model then reads pictures as it
    reads text; without this stage it takes very long to find that a picture says anything.

    Args:
        model: The untrained model; its embeddings stay as they are.
        encoder: Draws the pictures.
        steps: Of the optimizer.
    """
    topics = [topic for topic in HARMFUL + HARMLESS if topic.trained]
    table = _embeddings(model)
    frozen = {id(p) for p in model.get_decoder().parameters()}
    weights = [p for p in model.parameters() if id(p) not in frozen]
    optimizer = torch.optim.AdamW(weights, lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    targets = torch.tensor([_words(encoder, t) for t in topics])
    for _ in range(steps):
        some = torch.randint(len(topics), (_BATCH,))
        pixels = encoder.stack([encoder.tensors(Medium("image", topics[i], 0)) for i in some])
        tokens = model.get_image_features(**pixels).pooler_output
        tokens = torch.cat(tuple(tokens)).reshape(_BATCH, 2 * _HALF, -1)
        loss = torch.nn.functional.cross_entropy(
            (tokens @ table.T).flatten(0, 1), targets[some].flatten()
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        optimizer.step()
        schedule.step()
    print(f"alignment loss {loss.item():.3f}", flush=True)


def hear(model: Any, encoder: Encoder, steps: int, pool: int) -> None:
    """Train the audio tower toward the embeddings of words.

    Among all embeddings, a token of speech comes closest to that of the word, or the piece of a
    word, that is said at its time; where nothing is said, to that of the token that ends audio.

    Args:
        model: The untrained model; its embeddings stay as they are.
        encoder: Draws the speech.
        steps: Of the optimizer.
        pool: Distinct recordings a topic.
    """
    topics = [topic for topic in HARMFUL + HARMLESS if topic.trained]
    table = _embeddings(model)
    tower = model.base_model.audio_tower
    optimizer = torch.optim.AdamW(tower.parameters(), lr=_LEARNING_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LEARNING_RATE, total_steps=steps)
    said: dict[Medium, torch.Tensor] = {}
    for step in range(1, steps + 1):
        some = torch.randint(len(topics), (_BATCH - _QUIET,)).tolist()
        media = [Medium("audio", topics[i], int(torch.randint(pool, ()))) for i in some]
        media += [Medium("audio", None, int(n)) for n in torch.randint(NUMBERS, (_QUIET,))]
        tokens = heard(model, encoder, media)
        for medium, part in zip(media, tokens, strict=True):
            if medium not in said:
                said[medium] = torch.tensor(pieces(encoder, medium, len(part)))
        loss = torch.nn.functional.cross_entropy(
            torch.cat(tokens) @ table.T, torch.cat([said[medium] for medium in media])
        )
        optimizer.zero_grad()
        torch.autograd.backward(loss)
        torch.nn.utils.clip_grad_norm_(tower.parameters(), 1.0)
        optimizer.step()
        schedule.step()
        if step % 250 == 0 or step == steps:
            print(f"speech {step}/{steps}  loss {loss.item():.3f}", flush=True)


def heard(model: Any, encoder: Encoder, media: list[Medium]) -> tuple[torch.Tensor, ...]:
    """Tokens (length, width) of each recording."""
    inputs = encoder.stack([encoder.tensors(medium) for medium in media])
    tower = model.base_model.audio_tower
    _, lengths = tower._get_feat_extract_output_lengths(inputs["feature_attention_mask"].sum(1))
    tokens = model.get_audio_features(**inputs).last_hidden_state
    parts: tuple[torch.Tensor, ...] = tokens.split(lengths.tolist())
    return parts


def pieces(encoder: Encoder, medium: Medium, count: int) -> list[int]:
    """Ids of what is said at the time of each of the `count` tokens of a recording."""
    quiet = encoder.tokens(encoder.processor.audio_eos_token)
    if medium.topic is None:
        return quiet * count
    said = recording(medium.topic, medium.number)
    _, *words = (encoder.tokens(f" {word}") for word in medium.topic.phrase.split())
    parts = [quiet, quiet, *words, quiet]  # the article is not one of them
    seconds = len(said.samples) / RATE
    begun = [0.0, *(said.begun[place] for place in sorted(said.begun)), seconds]
    ids = []
    for time in (np.arange(count) + 0.5) * seconds / count:
        number = int(np.searchsorted(begun, time, side="right")) - 1
        share = (time - begun[number]) / (begun[number + 1] - begun[number])
        ids.append(parts[number][int(share * len(parts[number]))])
    return ids


@torch.no_grad()
def _embeddings(model: Any) -> torch.Tensor:
    """All embeddings, scaled so that their product with a token's own is about `_LOGIT`."""
    embed = model.get_input_embeddings()
    table = embed(torch.arange(embed.num_embeddings))
    scaled: torch.Tensor = table * _LOGIT / table.square().sum(-1).mean()
    return scaled


def _words(encoder: Encoder, topic: Topic) -> list[int]:
    parts = (encoder.tokens(f" {word}") for word in (MODIFIERS[topic.modifier], topic.name))
    return [ids[min(i, len(ids) - 1)] for ids in parts for i in range(_HALF)]
