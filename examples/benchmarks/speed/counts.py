"""What can be counted rather than timed: bytes, waits for the GPU, operations."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

__all__ = ["operations", "peak_bytes", "synchronizations"]


def peak_bytes(device: torch.device, run: Callable[[], object]) -> int | None:
    """Most bytes that a run held at once beyond those held before it; None without a GPU."""
    if device.type != "cuda":
        return None
    run()  # libraries keep their work space
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    return torch.cuda.max_memory_allocated(device) - before


def synchronizations(device: torch.device, run: Callable[[], object]) -> int | None:
    """How often the host waited for the GPU in a run, as PyTorch counts it; None without one."""
    if device.type != "cuda":
        return None
    torch.cuda.set_sync_debug_mode("warn")
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            run()
    finally:
        torch.cuda.set_sync_debug_mode("default")
    return sum("synchronizing CUDA operation" in str(warning.message) for warning in caught)


class _Counter(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the operations that compute something; views are free on a GPU."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.count = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.count += not func.is_view
        return func(*args, **(kwargs or {}))


def operations(run: Callable[[], object]) -> int:
    """PyTorch operations of a run, without views."""
    counter = _Counter()
    with counter:
        run()
    return counter.count
