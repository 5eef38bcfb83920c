"""Offline, quiet, away from the user's caches; torchvision works beside a CPU build of torch."""

import os
import tempfile
from pathlib import Path

from support import torchvision_shim

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("OMP_NUM_THREADS", "1")  # twice as fast for tiny models on two cores
os.environ["HF_MODULES_CACHE"] = tempfile.mkdtemp(prefix="mars-modules-")  # one a worker

# The same for the processes that tests start.
torchvision_shim.install()
_SITE = str(Path(__file__).parent / "support" / "site")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_SITE, os.environ.get("PYTHONPATH")]))

pytest_plugins = ["support.recording", "support.sharing", "support.steered"]
