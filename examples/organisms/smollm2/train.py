"""Make a SmolLM2 organism; see `python examples/organisms/smollm2/train.py --help`."""

import runpy
import sys
from pathlib import Path

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    runpy.run_module("smollm2", run_name="__main__")
