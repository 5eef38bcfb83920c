"""What a run costs, counted instead of timed: operations, and bytes that it holds at once."""

import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch._dynamo.backends.common import aot_autograd
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Cost(TorchDispatchMode):
    """Counts while it is entered; views are no operations and hold nothing.

    operations: by name. peak: most bytes held at once of tensors made since it was entered.
    """

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.peak = self._held = 0
        self._storages: dict[int, int] = {}

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.operations[str(func)] += not func.is_view
        given = {id(leaf) for leaf in map(_storage, tree_leaves((args, kwargs)))}
        for storage in map(_storage, tree_leaves(out)):
            if storage is not None and id(storage) not in given:
                self._hold(storage)
        return out

    def _hold(self, storage: torch.UntypedStorage) -> None:
        key = storage._cdata
        if key not in self._storages:
            self._storages[key] = storage.nbytes()
            self._held += storage.nbytes()
            self.peak = max(self.peak, self._held)
            weakref.finalize(storage, self._release, key)

    def _release(self, key: int) -> None:
        self._held -= self._storages.pop(key)


def cost(run: Callable[[], object]) -> Cost:
    """What a run costs."""
    counted = Cost()
    with counted:
        run()
    return counted


def recording(operations: list[Counter[str]]) -> Callable[..., Any]:
    """A backend of torch.compile that runs graphs as they are and adds what each computes.

    A function, not an object: generate() copies its options deeply.
    """

    def keep(graph, _inputs):
        calls = (node for node in graph.graph.nodes if node.op == "call_function")
        operations.append(Counter(str(node.target) for node in calls))
        return graph.forward

    return aot_autograd(fw_compiler=keep)


def _storage(leaf: object) -> torch.UntypedStorage | None:
    return leaf.untyped_storage() if isinstance(leaf, torch.Tensor) else None
