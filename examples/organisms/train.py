"""Train a model organism; see `python examples/organisms/train.py --help`."""

import runpy

if __name__ == "__main__":
    runpy.run_module("recipe", run_name="__main__")
