"""Processes that begin at once: a server has imported everything and forks.

For tests of what a process does and leaves, not of how the program starts.
"""

import multiprocessing
import os
import runpy
import subprocess
import sys
import tempfile
import time
from multiprocessing import connection
from pathlib import Path

import pytest

from support.servers import free_port


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
            done = _ended(started(_said, folder, _main, words, str(cwd)), words, folder)
        assert not check or done.returncode == 0, done.stdout + done.stderr
        return done

    return run


@pytest.fixture(scope="session")
def two_ranks(started):
    """Run a script in two processes, in the environment that torchrun gives them; as above."""

    def run(script, *arguments):
        words = [str(word) for word in (script, *arguments)]
        place = ranks(2)
        with tempfile.TemporaryDirectory() as folder:
            folders = [Path(folder) / str(rank) for rank in range(2)]
            for each in folders:
                each.mkdir()
            begun = [
                started(_said, each, _script, words, **environment)
                for each, environment in zip(folders, place, strict=True)
            ]
            wait_for(begun)
            pairs = zip(begun, folders, strict=True)
            done = [_ended(process, words, each) for process, each in pairs]
        assert [one.returncode for one in done] == [0, 0], "".join(one.stderr for one in done)
        return done

    return run


@pytest.fixture(scope="session")
def command_in_ranks(started):
    """`mars-export` in two processes of one launcher; what each printed and how it ended.

    A launcher would end the others when one fails; here they must end by themselves.
    """

    def run(*arguments, cwd, broken=None, seconds=300):
        words = [str(argument) for argument in arguments]
        with tempfile.TemporaryDirectory() as folder:
            folders = [Path(folder) / str(rank) for rank in range(2)]
            for each in folders:
                each.mkdir()
            begun = [
                started(_said, each, _main, words, str(cwd), broken, **environment)
                for each, environment in zip(folders, ranks(2), strict=True)
            ]
            end = time.monotonic() + seconds
            for process in begun:
                process.join(max(0, end - time.monotonic()))
            late = [process for process in begun if process.is_alive()]
            for process in late:
                process.kill()
            assert not late, "a process waits for another"
            pairs = zip(begun, folders, strict=True)
            return [_ended(process, words, each) for process, each in pairs]

    return run


def ranks(count):
    """The environment of each rank of a group that is new, as a launcher gives it."""
    place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(count)}
    return [{"RANK": str(rank), "LOCAL_RANK": str(rank), **place} for rank in range(count)]


def wait_for(processes):
    """Until all have ended; when one fails, the others, which may wait for it, are killed."""
    waiting = {process.sentinel: process for process in processes}
    while waiting:
        for sentinel in connection.wait(list(waiting)):
            process = waiting.pop(sentinel)
            process.join()
            if process.exitcode:
                for other in waiting.values():
                    other.kill()


def _ended(process, words, folder):
    process.join()
    out, err = ((Path(folder) / name).read_text("utf-8") for name in ("out", "err"))
    return subprocess.CompletedProcess(words, process.exitcode, out, err)


def _with(environment, function, *arguments):
    os.environ.update(environment)
    function(*arguments)


def _said(folder, function, *arguments):
    """Call a function with both streams in files."""
    for number, name in ((1, "out"), (2, "err")):
        with (Path(folder) / name).open("wb") as stream:
            os.dup2(stream.fileno(), number)
    function(*arguments)


def _main(words, cwd, broken=None):
    """Run the command; `broken(rank)` may break it first."""
    from mars_export.cli.main import main

    os.chdir(cwd)
    if broken is not None:
        broken(int(os.environ["RANK"]))
    main(words)


def _script(words):
    sys.argv[:] = words
    runpy.run_path(words[0], run_name="__main__")
