"""Installs `torchvision_shim` in every Python process that has this folder on PYTHONPATH."""

import importlib.util
from pathlib import Path

_spec = importlib.util.spec_from_file_location(
    "torchvision_shim", Path(__file__).parent.parent / "torchvision_shim.py"
)
assert _spec is not None
assert _spec.loader is not None
_shim = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_shim)
_shim.install()
