"""Several processes on one run, as `accelerate launch` or `torchrun` starts them.

torch is imported when there are some.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final, TypeVar

from mars_export.common.launch import process_count
from mars_export.families.placement import Device, is_split

__all__ = ["Processes", "joined"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_PATIENCE: Final = timedelta(days=1)
"""The others wait while the first one fetches, writes and hashes; a process that ends is noticed
at once."""


@dataclass(frozen=True)
class Processes:
    """This process among those that share the requests of a calibration or an evaluation.

    Attributes:
        rank: From 0; the first one writes what is made.
        count: How many there are.
        local: Rank on this machine, which is the index of its GPU.
    """

    rank: int = 0
    count: int = 1
    local: int = 0

    def device(self, device: str) -> str:
        """Where this process runs its model."""
        return f"cuda:{self.local}" if device == "cuda" and self.count > 1 else device

    def place(self, where: Device) -> Device:
        """The same, also of a placement."""
        if isinstance(where, str):
            return self.device(where)
        return where.model_copy(update={"device": self.device(where.device)})

    def sharing(self, model: Any) -> Processes:
        """Those that share the requests to a model: none do where each holds a part of it."""
        return Processes(local=self.local) if is_split(model) else self

    def gather(self, value: _T) -> list[_T]:
        """The value of every process, by rank; waits for all of them."""
        if self.count == 1:
            return [value]
        from torch import distributed

        values: list[Any] = [None] * self.count
        distributed.all_gather_object(values, value)
        return values

    def first(self, value: _T) -> _T:
        """The value of the first process; waits for it."""
        if self.count == 1:
            return value
        from torch import distributed

        values = [value]
        distributed.broadcast_object_list(values, src=0)
        return values[0]

    def each(self, parts: Sequence[_T], run: Callable[[_T], _R]) -> list[_R]:
        """What `run` makes of every part, each run by one process; the same list in all."""
        mine = self.gather([run(part) for part in parts[self.rank :: self.count]])
        return [mine[n % self.count][n // self.count] for n in range(len(parts))]

    def wait(self) -> None:
        """Until all processes are here."""
        self.gather(True)


@contextmanager
def joined() -> Iterator[Processes]:
    """The processes that the launcher names in the environment; one if there is no launcher.

    What they tell one another goes through gloo, whatever they compute on: it is only a few words,
    and numbers of the size of a calibration. Parts of a model that is split talk through NCCL.
    """
    count = process_count()
    if count == 1:
        yield Processes()
        return
    import torch
    from torch import distributed

    on_gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if on_gpu:
        torch.cuda.set_device(local)
    ours = not distributed.is_initialized()
    if ours:
        distributed.init_process_group(
            "cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=_PATIENCE
        )
    try:
        yield Processes(distributed.get_rank(), count, local)
    finally:
        if ours:
            distributed.destroy_process_group()
