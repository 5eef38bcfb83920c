"""What a model was asked, and how long that took, while the package works with it."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from types import ModuleType
from typing import Any

import torch

__all__ = ["Call", "Watch", "repeat"]

Call = tuple[str, dict[str, Any]]
"""Method of a model and its arguments."""

_METHODS = ("forward", "generate")


class Watch:
    """While it is entered: the calls that a model gets from outside, and two times in seconds.

    calls: of forward() and generate(), if kept. forwards: inside them. inputs: inside the function
    that makes inputs of requests, in whatever thread.
    """

    def __init__(self, model: Any, module: ModuleType, name: str, *, keep: bool = True) -> None:
        """name: of the function of `module` that makes inputs."""
        self.calls: list[Call] = []
        self.forwards = self.inputs = 0.0
        self._model, self._module, self._name = model, module, name
        self._keep, self._inside = keep, False

    def __enter__(self) -> Watch:
        self._native = getattr(self._module, self._name)
        setattr(self._module, self._name, self._timed_inputs)
        for method in _METHODS:
            setattr(self._model, method, self._watched(method, getattr(self._model, method)))
        return self

    def __exit__(self, *_: object) -> None:
        setattr(self._module, self._name, self._native)
        for method in _METHODS:
            delattr(self._model, method)

    def _timed_inputs(self, *args: Any, **kwargs: Any) -> Any:
        start = time.perf_counter()
        try:
            return self._native(*args, **kwargs)
        finally:
            self.inputs += time.perf_counter() - start

    def _watched(self, method: str, native: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(native)  # generate() reads the signature of forward()
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._inside:  # of generate()
                return native(*args, **kwargs)
            if self._keep:
                self.calls.append((method, dict(kwargs)))
            self._inside, start = True, time.perf_counter()
            try:
                return native(*args, **kwargs)
            finally:
                self._inside = False
                self.forwards += time.perf_counter() - start

        return run

    def counts(self) -> dict[str, Any]:
        """Calls, their rows, different texts among these, and the share of padding in them."""
        pairs = [(call["input_ids"], call["attention_mask"]) for _, call in self.calls]
        columns, real = (sum(int(f(mask)) for _, mask in pairs) for f in (torch.numel, torch.sum))
        texts = {
            tuple(row[kept == 1].tolist())
            for ids, mask in pairs
            for row, kept in zip(ids, mask, strict=True)
        }
        return {
            "forwards": len(pairs), "rows": sum(len(ids) for ids, _ in pairs),
            "distinct": len(texts), "padding": 1 - real / columns,
        }  # fmt: skip


@torch.inference_mode()
def repeat(model: Any, calls: list[Call]) -> None:
    """The same calls, with nothing around them."""
    for method, arguments in calls:
        getattr(model, method)(**arguments)
