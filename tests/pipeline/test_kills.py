"""Real exports that are killed, collide or run out of disk: the old, the new, or nothing."""

import json
import random
import shutil
import subprocess
import time

import pytest

from mars_export import ExportError, verify
from mars_export.checkpoint.manifest import MANIFEST_NAME
from mars_export.common.workspace import RUN_NAME, digests
from support import real_export, tiny

KILLS = 25
PAUSE = 0.01
"""Seconds after each file that is hashed, so that kills find something half-done."""


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    folder = tmp_path_factory.mktemp("made")
    tiny.save_base("gemma3", folder / "base")
    tiny.save_calibration("gemma3", folder / "calibration")
    return folder / "base", folder / "calibration"


def hidden(output):
    return output.parent / f".{output.name}.mars-export"


def published(output):
    """Digest of what the output was made from; None if there is no output."""
    return json.loads((output / RUN_NAME).read_bytes())["digest"] if output.exists() else None


def test_kill_9_at_any_moment_of_an_export(made, processes, tmp_path):
    output, chance, ends = tmp_path / "out", random.Random(0), set()
    seconds = 10.0  # the first is not killed, and measured
    for number in range(KILLS):
        before, begun = published(output), processes.Event()
        arguments = (output, *made, PAUSE, number)
        process = processes.Process(target=real_export.announce, args=(begun, *arguments))
        process.start()
        assert begun.wait()
        start = time.monotonic()
        process.join(seconds if number == 0 else chance.uniform(0, 1.2 * seconds))
        process.kill()
        process.join()
        if number == 0:
            seconds = time.monotonic() - start
        if output.exists():
            assert verify(output).passed
            new = digests(real_export.stages(output, *made, PAUSE, number))[-1]
            assert published(output) in (before, new)
            ends.add("old" if published(output) == before else "new")
        else:  # between two renames: the next run ends the replacement
            assert verify(hidden(output) / "replaced").passed
        if number % 5 == 4:
            real_export.make(*arguments)
            assert verify(output).passed
            assert [path.name for path in tmp_path.iterdir()] == ["out"]
    assert ends == {"old", "new"}


def test_a_killed_first_export_leaves_no_output(made, processes, tmp_path):
    for number in range(5):
        output, begun = tmp_path / "out", processes.Event()
        arguments = (begun, output, *made, 30.0, number)  # it sleeps in the middle of its work
        process = processes.Process(target=real_export.announce, args=arguments)
        process.start()
        assert begun.wait()
        time.sleep(0.03 * number)
        process.kill()
        process.join()
        assert not output.exists()
    real_export.make(output, *made)
    assert verify(output).passed


def test_a_killed_run_goes_on_after_its_finished_stage(made, processes, tmp_path):
    output = tmp_path / "out"
    notes = hidden(output) / "notes" / "0"
    process = processes.Process(target=real_export.make, args=(output, *made, 30.0))
    process.start()
    manifest = hidden(output) / "made" / "config.json"
    while process.is_alive() and not manifest.exists():
        time.sleep(0.002)
    process.kill()
    process.join()
    assert not output.exists()
    before = notes.stat().st_mtime_ns
    seen = []
    real = real_export.stages

    def stages(*arguments):
        seen.append(notes.stat().st_mtime_ns)
        return real(*arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(real_export, "stages", stages)
        real_export.make(output, *made)
    assert seen == [before]
    assert verify(output).passed


def test_two_exports_into_one_directory(made, processes, tmp_path):
    output = tmp_path / "out"
    answers, barrier = processes.Queue(), processes.Barrier(2)
    pair = [
        processes.Process(
            target=real_export.say, args=(answers, barrier, output, *made, 0.05, number)
        )
        for number in range(2)
    ]
    for process in pair:
        process.start()
    said = sorted(answers.get() for _ in pair)
    for process in pair:
        process.join()
    assert said == [
        f"another run is making {output}; wait for it or choose another --output",
        "made",
    ]
    assert verify(output).passed
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.fixture
def disk(tmp_path):
    """A file system of its own in memory, which only root may mount; call it to change it."""
    place = tmp_path / "disk"
    place.mkdir()

    def mount(options):
        call = ["mount", "-t", "tmpfs", "-o", options, "none", str(place)]
        return subprocess.run(call, capture_output=True, text=True, check=False)

    if shutil.which("mount") is None or (tried := mount("size=600k")).returncode:
        reason = tried.stderr.strip() if shutil.which("mount") else "there is no mount"
        pytest.skip(f"cannot mount a small file system: {reason}")
    mount.place = place
    yield mount
    subprocess.run(["umount", str(place)], check=True)


def test_a_full_disk(made, disk):
    output = disk.place / "out"
    with pytest.raises(ExportError, match="No space left on device; free some space") as caught:
        real_export.make(output, *made)
    assert "\n" not in str(caught.value)
    assert not output.exists()
    assert disk("remount,size=10m").returncode == 0
    real_export.make(output, *made)
    assert verify(output).passed
    assert [path.name for path in disk.place.iterdir()] == ["out"]


def test_a_disk_that_is_full_while_another_export_is_replaced(made, disk):
    output = disk.place / "out"
    disk("remount,size=1500k")
    real_export.make(output, *made, 0.0, 1)
    before = (output / MANIFEST_NAME).read_bytes()
    with pytest.raises(ExportError, match="No space left on device"):
        real_export.make(output, *made, 0.0, 2)
    assert verify(output).passed
    assert (output / MANIFEST_NAME).read_bytes() == before


def test_a_read_only_disk(made, disk):
    output = disk.place / "out"
    disk("remount,size=10m")
    real_export.make(output, *made)
    assert disk("remount,ro").returncode == 0
    with pytest.raises(ExportError, match="Read-only file system; choose another --output"):
        real_export.make(output, *made, 0.0, 1)
    assert verify(output).passed
