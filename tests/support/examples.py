"""Examples run as their own commands do, in the process of the test."""

import importlib
import sys

from support.organisms import ROOT


def run_example(name, *words):
    """Run `main` of examples/NAME/NAME.py on a command line; `sys.path` stays as it is."""
    before = sys.path.copy()
    sys.path.insert(0, str(ROOT / "examples" / name))
    try:
        importlib.import_module(name).main([str(word) for word in words])
    finally:
        sys.path[:] = before
