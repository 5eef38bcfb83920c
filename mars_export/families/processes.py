"""Several processes on one run, as `accelerate launch` or `torchrun` starts them.

torch is imported when there are some.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, TypeVar

from mars_export.common.errors import ExportError
from mars_export.common.input_errors import is_out_of_memory
from mars_export.common.launch import process_count
from mars_export.families.placement import Device, is_split

__all__ = ["Processes", "joined"]

_T = TypeVar("_T")
_R = TypeVar("_R")
_PATIENCE: Final = timedelta(days=1)
"""The others wait while the first one fetches, writes, hashes and judges. That a process ends is
noticed at once by gloo; by NCCL it is not, and the launcher has to end those who wait."""
_FAILED: Final = "mars-export/failed"
_CODE: Final = "mars-export/code"
"""Keys of the store: how many processes ended badly, and the exit code of the first of them."""
_FAREWELL: Final = 5.0
"""Seconds that the process with the store waits for others to read there why it ends."""


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
    store: Any = field(default=None, repr=False, compare=False)
    """Of torch, where processes leave a word that nobody waits for; None in a nested group."""

    def device(self, device: str) -> str:
        """Where this process runs its model.

        Raises:
            ExportError: if there are more processes on its machine than GPUs.
        """
        if device != "cuda" or self.count == 1:
            return device
        import torch

        there = torch.cuda.device_count()
        if self.local >= there:
            raise ExportError(
                f"process {self.rank} has no GPU: torch sees {there} on its machine; start as many "
                "processes there"
            )
        return f"cuda:{self.local}"

    def place(self, where: Device) -> Device:
        """The same, also of a placement."""
        if isinstance(where, str):
            return self.device(where)
        return where.model_copy(update={"device": self.device(where.device)})

    def sharing(self, model: Any) -> Processes:
        """Those that share the requests to a model: none do where each holds a part of it."""
        return self.alone() if is_split(model) else self

    def alone(self) -> Processes:
        """This process as one that shares nothing."""
        return Processes(local=self.local)

    def fail(self, code: int) -> int | None:
        """Note that this process ends badly.

        Args:
            code: That it exits with.

        Returns:
            The code of another one that did so before and has said why; None if this is the first.
        """
        if self.store is None:
            return None
        try:
            if self.store.add(_FAILED, 1) > 1:
                return int(self.store.get(_CODE))
            self.store.set(_CODE, str(code))
        except RuntimeError:  # the process with the store is gone
            pass
        return None

    def gather(self, value: _T) -> list[_T]:
        """The value of every process, by rank; waits for all of them."""
        if self.count == 1:
            return [value]
        from torch import distributed

        # Packed here: what values raise says nothing about other processes.
        packed = [b""] * self.count
        mine = pickle.dumps(value)
        with self._all_there():
            distributed.all_gather_object(packed, mine)
        return [pickle.loads(each) for each in packed]

    def first(self, value: _T) -> _T:
        """The value of the first process; waits for it."""
        if self.count == 1:
            return value
        from torch import distributed

        packed = [pickle.dumps(value) if self.rank == 0 else b""]
        with self._all_there():
            distributed.broadcast_object_list(packed, src=0)
        return value if self.rank == 0 else pickle.loads(packed[0])

    def received(self) -> Any:
        """What the first process, and it alone, gives to `first`; waits for it."""
        return self.first(None)

    def each(self, parts: Sequence[_T], run: Callable[[_T], _R]) -> list[_R]:
        """What `run` makes of every part, each run by one process; the same list in all."""
        mine = self.gather([run(part) for part in parts[self.rank :: self.count]])
        return [mine[n % self.count][n // self.count] for n in range(len(parts))]

    def wait(self) -> None:
        """Until all processes are here."""
        self.gather(True)

    @contextmanager
    def _all_there(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # of gloo: a connection was closed
            if is_out_of_memory(error):
                raise
            raise ExportError(
                f"another of the {self.count} processes has ended; if it says no reason, the "
                "system ended it, as where memory runs out: see the output of the launcher"
            ) from error

    def _see_off(self) -> None:
        """Let the others read in the store of this process that it has failed."""
        waited = 0.0
        try:
            while 0 < self.store.add(_FAILED, 0) < self.count and waited < _FAREWELL:
                time.sleep(0.05)
                waited += 0.05
        except RuntimeError:  # the launcher has the store, and ends
            pass


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
    from torch.distributed.rendezvous import rendezvous

    on_gpu = torch.cuda.is_available()
    local = int(os.environ.get("LOCAL_RANK", "0"))
    if local < torch.cuda.device_count():
        torch.cuda.set_device(local)
    if distributed.is_initialized():
        yield Processes(distributed.get_rank(), count, local)
        return
    store, rank, _ = next(rendezvous("env://"))
    distributed.init_process_group(
        "cpu:gloo,cuda:nccl" if on_gpu else "gloo",
        timeout=_PATIENCE,
        store=store,
        rank=rank,
        world_size=count,
    )
    processes = Processes(rank, count, local, store)
    try:
        yield processes
    finally:
        distributed.destroy_process_group()
        if rank == 0:
            processes._see_off()
