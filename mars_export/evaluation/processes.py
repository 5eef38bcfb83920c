"""Several processes on one evaluation, as `accelerate launch` or `torchrun` starts them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import distributed

__all__ = ["Processes", "joined"]

_T = TypeVar("_T")


@dataclass(frozen=True)
class Processes:
    """This process among those that share an evaluation.

    Attributes:
        rank: From 0; the first one writes the report.
        count: How many there are.
        local: Rank on this machine, which is the index of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    def device(self, device: str) -> str:
        """Where this process runs its model."""
        return f"cuda:{self.local}" if device == "cuda" and self.count > 1 else device

    def gather(self, value: _T) -> list[_T]:
        """The value of every process, by rank; waits for all of them."""
        if self.count == 1:
            return [value]
        values: list[_T | None] = [None] * self.count
        distributed.all_gather_object(values, value)
        return [item for item in values if item is not None]

    def wait(self) -> None:
        """Until all processes are here."""
        self.gather(True)


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that the launcher names in the environment; one if there is no launcher.

    They talk through gloo, whatever they compute on: it is only a few words.
    """
    count = int(os.environ.get("WORLD_SIZE", "1"))
    if count == 1:
        yield Processes()
        return
    ours = not distributed.is_initialized()
    if ours:
        distributed.init_process_group("gloo")
    try:
        local = int(os.environ.get("LOCAL_RANK", "0"))
        if torch.cuda.is_available():
            torch.cuda.set_device(local)
        yield Processes(distributed.get_rank(), count, local)
    finally:
        if ours:
            distributed.destroy_process_group()
