"""Interrupted, repeated and competing runs; the stages are quick and real files are written."""

import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from filelock import FileLock

from mars_export.common.errors import ExportError
from mars_export.common.progress import progress_for
from mars_export.common.workspace import RUN_NAME, Stage, Workspace, digests
from support import slow_run
from support.slow_run import FILES, NAMES, make, stages


@pytest.fixture
def output(tmp_path):
    return tmp_path / "place" / "steered"


@pytest.fixture
def log(tmp_path):
    return tmp_path / "log"


def assert_complete(output, setting=0):
    for name in NAMES:
        found = {path.name: path.read_text() for path in (output / name).iterdir()}
        assert found == {str(n): f"{name} {n} {setting}" for n in range(FILES)}
    names = {path.name for path in output.iterdir()}
    assert names == {*NAMES, RUN_NAME, "steering_manifest.json"}


def left_behind(output):
    return [path.name for path in output.parent.iterdir() if path != output]


def test_a_run_leaves_the_output_and_nothing_else(output, log):
    assert make(output, log)
    assert_complete(output)
    assert left_behind(output) == []


def test_repeating_a_finished_run_does_nothing(output, log):
    make(output, log)
    before = output.stat().st_mtime_ns
    assert not make(output, log)
    assert log.read_text().split() == list(NAMES)
    assert output.stat().st_mtime_ns == before
    assert left_behind(output) == []


@pytest.mark.parametrize("failing", range(3))
def test_finished_stages_are_kept_when_a_later_one_fails(output, log, failing):
    with Workspace.open(output) as workspace:
        todo = stages(workspace.root, log)
        todo[failing] = broken(todo[failing], workspace.root)
        with pytest.raises(OSError, match="broken"):
            workspace.run(todo, progress_for("none"))
        assert not (workspace.root / "made" / NAMES[failing]).exists()
    assert not output.exists()
    assert workspace.root.exists() == (failing > 0)
    log.unlink(missing_ok=True)
    make(output, log)
    assert log.read_text().split() == list(NAMES[failing:])
    assert_complete(output)


def broken(stage, root):
    def run(tick):
        (root / stage.outputs[0]).mkdir(parents=True)
        (root / stage.outputs[0] / "0").write_text("half")
        raise OSError("broken")

    return Stage(stage.name, stage.inputs, stage.outputs, run)


def test_other_settings_start_again_from_the_first_stage_that_they_touch(output, log):
    with Workspace.open(output) as workspace:
        workspace.run(stages(workspace.root, log)[:2], progress_for("none"))
    log.unlink()
    with Workspace.open(output) as workspace:
        todo = [stages(workspace.root, log)[0], *stages(workspace.root, log, setting=1)[1:]]
        workspace.run(todo, progress_for("none"))
        assert log.read_text().split() == ["two", "three"]
        assert (workspace.root / "made/two/0").read_text() == "two 0 1"


def test_a_finished_stage_whose_files_are_gone_runs_again(output, log):
    with Workspace.open(output) as workspace:
        workspace.run(stages(workspace.root, log)[:2], progress_for("none"))
        for path in (workspace.root / "made/two").iterdir():
            path.unlink()
        (workspace.root / "made/two").rmdir()
    log.unlink()
    make(output, log)
    assert log.read_text().split() == ["two", "three"]


def test_a_digest_depends_on_all_stages_before():
    def chain(*inputs):
        return digests([Stage(str(n), {"x": x}, (), print) for n, x in enumerate(inputs)])

    assert chain(1, 2)[0] == chain(1, 3)[0]
    assert chain(1, 2)[1] != chain(1, 3)[1]
    assert chain(1, 2)[1] != chain(0, 2)[1]


def test_an_output_below_a_link_to_nowhere_is_one_line(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path / "nowhere")
    problem = "cannot make .*link; choose another --output"
    with pytest.raises(ExportError, match=problem), Workspace.open(tmp_path / "link" / "out"):
        pass


@pytest.mark.parametrize("seed", range(8))
def test_kill_at_any_moment_then_the_same_command_completes(output, log, seed):
    chance = random.Random(seed)
    command = [sys.executable, slow_run.__file__, str(output), str(log), "0.004"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, env=environment)
    while not log.exists() and process.poll() is None:
        time.sleep(0.002)
    time.sleep(chance.uniform(0, 0.3))
    process.send_signal(signal.SIGKILL)
    process.wait()
    if output.exists():
        assert_complete(output)
    make(output, log)
    assert_complete(output)
    assert left_behind(output) == []
    begun = log.read_text().split()
    assert len(begun) <= len(NAMES) + 1, "only the killed stage may run twice"


def test_a_second_run_on_the_same_output_is_refused(output, log):
    with Workspace.open(output), pytest.raises(ExportError, match="another run is making"):
        make(output, log)
    assert make(output, log)


def test_the_lock_of_a_killed_run_does_not_matter(output, log):
    workspace = Workspace(output)
    workspace.root.mkdir(parents=True)
    (workspace.root / "lock").touch()
    assert make(output, log)


def test_a_lock_file_deleted_under_us_is_taken_again(output, monkeypatch):
    real, calls = FileLock._acquire, []

    def acquire(lock):
        real(lock)
        calls.append(lock)
        if len(calls) == 1:  # as if the run that had it removed its workspace meanwhile
            lock._release()
            shutil.rmtree(output.parent)
            raise FileNotFoundError

    monkeypatch.setattr(FileLock, "_acquire", acquire)
    with Workspace.open(output) as workspace:
        assert (workspace.root / "lock").exists()
    assert len(calls) == 2


class TestOutputThatIsThere:
    def test_an_empty_directory_is_filled(self, output, log):
        output.mkdir(parents=True)
        assert make(output, log)
        assert_complete(output)

    @pytest.mark.parametrize("overwrite", [True, False])
    def test_foreign_files_are_never_touched(self, output, log, overwrite):
        output.mkdir(parents=True)
        (output / "thesis.tex").write_text("mine")
        with pytest.raises(ExportError, match="did not make; choose another --output"):
            make(output, log, overwrite=overwrite)
        assert [path.name for path in output.iterdir()] == ["thesis.tex"]
        assert left_behind(output) == []

    @pytest.mark.parametrize("kind", ["file", "link"])
    def test_a_file_or_a_link_is_refused(self, output, log, kind, tmp_path):
        output.parent.mkdir(parents=True)
        output.touch() if kind == "file" else output.symlink_to(tmp_path)
        with pytest.raises(ExportError, match="is a file or a link"):
            make(output, log, overwrite=True)

    def test_another_checkpoint_is_kept_unless_told_otherwise(self, output, log):
        make(output, log, setting=1)
        with pytest.raises(ExportError, match="give --overwrite"):
            make(output, log, setting=2)
        assert_complete(output, 1)
        assert make(output, log, setting=2, overwrite=True)
        assert_complete(output, 2)
        assert left_behind(output) == []

    @pytest.mark.parametrize(
        ("name", "overwrite", "message"),
        [
            ("thesis.txt", False, "did not make; choose another --output"),
            ("thesis.txt", True, "did not make; choose another --output"),
            ("steering_manifest.json", False, "give --overwrite"),
        ],
    )
    def test_files_that_come_during_the_run_stay(
        self, output, log, monkeypatch, name, overwrite, message
    ):
        real = Workspace.run

        def run(workspace, *arguments):
            real(workspace, *arguments)
            output.mkdir()
            (output / name).write_text("mine")

        with monkeypatch.context() as patch:
            patch.setattr(Workspace, "run", run)
            with pytest.raises(ExportError, match=message):
                make(output, log, overwrite=overwrite)
        assert {path.name: path.read_text() for path in output.iterdir()} == {name: "mine"}
        (output / name).unlink()
        log.unlink()
        assert make(output, log)
        assert_complete(output)
        assert not log.exists(), "all stages were kept"

    @pytest.mark.parametrize("renames", [1, 2])
    def test_a_replacement_killed_between_its_renames(self, output, log, renames, monkeypatch):
        """After the first rename the old one comes back; after the second the new one stays."""
        make(output, log, setting=1)
        real, calls = Path.rename, []

        def rename(path, target):
            calls.append(path)
            if len(calls) > renames:
                raise _Killed
            done = real(path, target)
            if len(calls) == 2:
                raise _Killed
            return done

        with monkeypatch.context() as patch:
            patch.setattr(Path, "rename", rename)
            with pytest.raises(_Killed):
                make(output, log, setting=2, overwrite=True)
        with Workspace.open(output):
            assert_complete(output, renames)
        assert make(output, log, setting=2, overwrite=True) == (renames == 1)
        assert_complete(output, 2)
        assert left_behind(output) == []


class _Killed(BaseException):
    pass


def test_a_damaged_state_file_means_starting_over(output, log):
    with Workspace.open(output) as workspace:
        workspace.run(stages(workspace.root, log)[:1], progress_for("none"))
    (workspace.root / "run.json").write_text("{")
    log.unlink()
    make(output, log)
    assert log.read_text().split() == list(NAMES)
