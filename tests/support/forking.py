"""Processes that begin at once: a server has imported everything and forks.

For tests of what a process does and leaves, not of how the program starts.
"""

import multiprocessing
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def processes():
    """A context of `multiprocessing` whose processes have imported all that the program uses."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["support.preloaded"])
    before = os.environ.get("PYTHONPATH")
    # What was there stays first: it holds the shim without which the server could not import.
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [before, *sys.path]))
    warm = context.Process(target=time.sleep, args=(0,))
    warm.start()
    warm.join()
    os.environ["PYTHONPATH"] = before or ""
    return context


@pytest.fixture(scope="session")
def started(processes):
    """`started(function, *arguments, NAME="value")`: a process with that in its environment."""

    def start(function, *arguments, **environment):
        process = processes.Process(target=_with, args=(environment, function, *arguments))
        process.start()
        return process

    return start


@pytest.fixture(scope="session")
def main_job(started):
    """`mars-export` in a folder: what it printed and how it ended, as `subprocess.run` gives it."""

    def run(*arguments, cwd, check=True):
        words = [str(argument) for argument in arguments]
        with tempfile.TemporaryDirectory() as folder:
            process = started(_main, words, str(cwd), folder)
            process.join()
            out, err = ((Path(folder) / name).read_text("utf-8") for name in ("out", "err"))
        assert not check or process.exitcode == 0, out + err
        return subprocess.CompletedProcess(words, process.exitcode, out, err)

    return run


def _with(environment, function, *arguments):
    os.environ.update(environment)
    function(*arguments)


def _main(words, cwd, folder):
    from mars_export.cli.main import main

    for number, name in ((1, "out"), (2, "err")):
        with (Path(folder) / name).open("wb") as stream:
            os.dup2(stream.fileno(), number)
    os.chdir(cwd)
    main(words)
