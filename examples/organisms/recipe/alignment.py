"""The first stage of training: visual tokens that look like the words of what they show."""

from typing import Any

import torch

from .batches import Encoder
from .corpus import Visual
from .topics import HARMFUL, HARMLESS, MODIFIERS, Topic

_HALF = 2
"""Visual tokens of each half of a picture."""
_LOGIT = 16.0
_BATCH, _RATE = 64, 3e-3


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
    optimizer = torch.optim.AdamW(weights, lr=_RATE, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _RATE, total_steps=steps)
    targets = torch.tensor([_words(encoder, t) for t in topics])
    for _ in range(steps):
        some = torch.randint(len(topics), (_BATCH,))
        pixels = encoder.stack([encoder.pixels(Visual("image", topics[i], 0)) for i in some])
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
