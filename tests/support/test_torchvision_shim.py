"""The shim, on a package that fails at import the way torchvision's CUDA wheel does."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

SITE = Path(__file__).parent / "site"
PACKAGE = """
import torch

@torch.library.register_fake("torchvision::nms")
def nms(dets, scores, iou_threshold):
    return dets.new_empty(0, dtype=torch.long)

@torch.library.register_fake("torchvision::qnms")
def qnms(dets, scores, iou_threshold):
    return dets.new_empty(0, dtype=torch.long)
"""


def run(folder: Path, code: str, *paths: Path) -> subprocess.CompletedProcess[str]:
    search = os.pathsep.join(map(str, [*paths, folder]))
    env = os.environ | {"PYTHONPATH": search, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


@pytest.fixture
def broken(tmp_path: Path) -> Path:
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision/__init__.py").write_text(PACKAGE)
    (tmp_path / "torchvision/_C.so").write_bytes(b"not a library")
    return tmp_path


def test_without_the_shim_the_import_fails(broken):
    assert "operator torchvision::nms does not exist" in run(broken, "import torchvision").stderr


def test_with_the_shim_it_works_and_says_nothing(broken):
    code = "import torchvision, torch; torch.ops.torchvision.nms; torch.ops.torchvision.qnms"
    done = run(broken, code, SITE)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_installing_twice_and_operators_that_exist_do_no_harm(broken):
    code = (
        "from support import torchvision_shim as s; s.install(); s.install(); import torch; "
        "library = torch.library.Library('torchvision', 'DEF'); "
        "library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'); "
        "import torchvision; torch.ops.torchvision.qnms"
    )
    done = run(broken, code, SITE, SITE.parent.parent)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_nothing_heavy_is_imported_until_torchvision_is(broken):
    code = (
        "import importlib.util, sys; importlib.util.find_spec('torchvision'); "
        "print('torch' in sys.modules)"
    )
    assert run(broken, code, SITE).stdout == "False\n"


def test_absent_is_absent(tmp_path):
    code = "import sys; sys.path = sys.path[:2] + [p for p in sys.path if 'site-pack' not in p]\n"
    code += "import importlib.util; print(importlib.util.find_spec('torchvision'))"
    assert run(tmp_path, code, SITE).stdout == "None\n"
