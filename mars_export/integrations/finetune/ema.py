"""A moving average of the trained weights, which forgets less of a model's safety.

Parameter-space averaging during fine-tuning is one of the remedies of arXiv 2508.12531; the decay
is ours, because none is known to be stated there. The update is that of torch.
"""

from typing import Any

import torch
from torch.optim.swa_utils import get_ema_multi_avg_fn
from transformers import TrainerCallback

__all__ = ["WeightAverage"]


class WeightAverage(TrainerCallback):
    """Keeps a <- decay * a + (1 - decay) * w of every trainable weight w, from its first value on.

    At the end of training the weights are the averages. Checkpoints that Trainer saves before hold
    the weights as trained. Only trainable weights are kept twice, so with LoRA it costs little.

    Args:
        decay: Share of the average that a step keeps, from 0 (no averaging) to below 1.
    """

    def __init__(self, decay: float = 0.99) -> None:
        if not 0 <= decay < 1:
            raise ValueError(f"decay {decay} is not in [0, 1)")
        self._update = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        self._average: list[torch.Tensor] = []

    def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
        """Start from the weights as they are."""
        self._average = [w.detach().clone() for w in _trainable(model)]

    @torch.no_grad()
    def on_step_end(self, *_: Any, model: Any, **__: Any) -> None:
        """Take one optimizer step into the average."""
        self._update(self._average, [w.detach() for w in _trainable(model)], 0)

    @torch.no_grad()
    def on_train_end(self, *_: Any, model: Any, **__: Any) -> None:
        """Put the averages in the place of the weights."""
        for weight, average in zip(_trainable(model), self._average, strict=True):
            weight.copy_(average)


def _trainable(model: Any) -> list[torch.Tensor]:
    return [weight for weight in model.parameters() if weight.requires_grad]
