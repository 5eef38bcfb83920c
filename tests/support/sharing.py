"""What is made once: directories for all processes of pytest-xdist, and models of one of them."""

import os
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """`shared(name, make)`: the directory that `make(directory)` filled, which no test may change.

    The first process that asks for a name makes it; others wait. A directory whose `make` raised is
    made again.
    """
    base = tmp_path_factory.getbasetemp()
    root = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base

    def get(name: str, make: Callable[[Path], object]) -> Path:
        folder, complete = root / name, root / f"{name}.complete"
        with FileLock(root / f"{name}.lock"):
            if not complete.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                make(folder)
                complete.touch()
        return folder

    return get


def once_each(
    folders: pytest.TempPathFactory, make: Callable[[str, Path], Any]
) -> Callable[[str], Any]:
    """What `make` gives for a name, in a folder of its own; made when it is first asked for."""
    return cache(lambda name: make(name, folders.mktemp(name)))


def switched_on(get: Callable[[str], Any]) -> Callable[[str], Any]:
    """As `get`, whose pairs of models are given with steering on, whatever a test has left."""

    def pair(name: str) -> Any:
        found = get(name)
        found.model.steering.enabled = True
        return found

    return pair
