"""Makes a CUDA build of torchvision importable beside a CPU build of torch.

The published wheel's extension needs `libtorch_cuda.so`. Without it `import torchvision` stops at
"operator torchvision::nms does not exist", and every Transformers model import stops with it. The
processors use none of the compiled operators, so declaring the two that torchvision touches at
import is enough. Nothing happens where torchvision is absent or its extension loads.

In a process: `torchvision_shim.install()` before Transformers is imported. For subprocesses:
`PYTHONPATH=tests/support/site`, whose `sitecustomize` calls the same function.
"""

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

_SCHEMA = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"
_keep: list[Any] = []
"""Operators vanish with the library object that declared them."""


def install() -> None:
    """Look at torchvision when it is imported, and only then; torch is not imported before."""
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(MetaPathFinder):
    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        spec = PathFinder.find_spec(name, path, target) if name == "torchvision" else None
        if spec is None or spec.loader is None or spec.origin is None:
            return None
        execute, folder = spec.loader.exec_module, Path(spec.origin).parent

        def declare_then_execute(module: ModuleType) -> None:
            _declare(folder)
            execute(module)

        spec.loader.exec_module = declare_then_execute  # type: ignore[method-assign]
        return spec


def _declare(folder: Path) -> None:
    if _extension_loads(folder):
        return
    import torch

    library = torch.library.Library("torchvision", "FRAGMENT")
    _keep.append(library)
    for operator in ("nms", "qnms"):
        if not hasattr(torch.ops.torchvision, operator):
            library.define(operator + _SCHEMA)


def _extension_loads(folder: Path) -> bool:
    import torch

    try:
        for extension in folder.glob("_C*.so"):
            torch.ops.load_library(extension)
    except OSError:
        return False
    return hasattr(torch.ops.torchvision, "nms")
