"""Offline, quiet, away from the user's caches; torchvision works beside a CPU build of torch."""

import gc
import os
import tempfile
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from support import torchvision_shim

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # twice as fast for tiny models on two cores
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="mars-modules-")  # one a worker

# The same for the processes that tests start.
torchvision_shim.install()
_SITE = str(Path(__file__).parent / "support" / "site")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_SITE, os.environ.get("PYTHONPATH")]))

# How long an example takes says more about a busy machine than about the test.
settings.register_profile("busy", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("busy")

pytest_plugins = ["support.forking", "support.recording", "support.sharing", "support.steered"]

LONGEST = (
    "integrations/onnx/test_export.py",
    "integrations/finetune/test_example.py",
    "integrations/onnx/test_graphs.py",
    "quantized/test_example.py",
    "pipeline/test_export.py",
    "test_readme.py",
    "families/test_behavior.py",
    "families/test_cost.py",
    "families/test_modes.py",
    "organisms/test_serve.py",
    "organisms/test_text_only.py",
    "organisms/test_main_job.py",
    "pipeline/test_kills.py",
    "methods/mars/test_method.py",
    "methods/test_behavior.py",
    "evaluation/test_kills.py",
    "evaluation/test_processes.py",
    "distributed/test_two_processes.py",
    "test_packaging.py",
    "verification/test_flips.py",
    "benchmarks/test_speed.py",
)
"""Files that take long by their fixtures; two workers are done together if they begin with them."""


def pytest_configure(config: pytest.Config) -> None:
    """Keep pytest-xdist from ordering the files, which it would do by their numbers of tests."""
    config.option.loadscopereorder = False


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, then those with many tests."""
    root = Path(__file__).parent
    place = {root / name: number for number, name in enumerate(LONGEST)}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (place.get(item.path, len(place)), -tests[item.path], item.path))


def pytest_collection_finish() -> None:
    """Look for garbage less often, and not among what is imported: a tenth of some tests."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 100)
