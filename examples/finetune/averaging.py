"""Weights averaged while a steered checkpoint is trained (arXiv 2508.12531).

average = Averaging(decay=0.98)
transformers.Trainer(model, ..., callbacks=[average]).train()
average.apply()                 # the trained weights become their average
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

__all__ = ["Averaging"]


class Averaging(transformers.TrainerCallback):
    """Keeps an exponential moving average of what is trained: of a LoRA, or of all weights.

    Args:
        decay: Share of the old average that a step keeps; about 1 / (1 - decay) steps count. The
            paper's abstract names no value.
    """

    def __init__(self, decay: float = 0.98) -> None:
        if not 0 < decay < 1:
            raise ValueError(f"decay: {decay} is not between 0 and 1")
        self.decay = decay
        self._trained: dict[str, torch.nn.Parameter] = {}
        self._average: dict[str, torch.Tensor] = {}

    def on_train_begin(self, _args: Any, _state: Any, _control: Any, **given: Any) -> None:
        """Begin with the weights before training."""
        named = given["model"].named_parameters()
        self._trained = {name: p for name, p in named if p.requires_grad}
        self._average = {n: p.detach().float().clone() for n, p in self._trained.items()}

    @torch.no_grad()
    def on_step_end(self, *_: Any, **_given: Any) -> None:
        """Move the average toward the weights of this step."""
        for name, parameter in self._trained.items():
            self._average[name].lerp_(parameter.float(), 1 - self.decay)

    @torch.no_grad()
    def apply(self) -> None:
        """Put the average in the place of the trained weights, for good."""
        for name, parameter in self._trained.items():
            parameter.copy_(self._average[name])

    @contextmanager
    def applied(self) -> Iterator[None]:
        """The same for a while, for example to evaluate or to save."""
        kept = {name: parameter.detach().clone() for name, parameter in self._trained.items()}
        self.apply()
        try:
            yield
        finally:
            with torch.no_grad():
                for name, parameter in self._trained.items():
                    parameter.copy_(kept[name])
