"""What a user sees while a run goes on."""

import io
import subprocess
import sys

import pytest
from rich.console import Console

from mars_export.common.progress import Progress, progress_for


class Clock:
    def __init__(self):
        self.now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def plain():
    clock, stream = Clock(), io.StringIO()
    return Progress(Console(file=stream), clock), clock, stream


def test_plain_lines_are_few_and_tell_elapsed_and_remaining(plain):
    progress, clock, stream = plain
    with progress.stage("calibrate") as tick:
        for done in range(100):
            clock.now = done * 0.1
            tick(done, 100)
    first, middle, last = stream.getvalue().splitlines()
    assert first == "calibrate ..."
    assert middle == "calibrate 50/100, 5 s elapsed, 5 s remaining"
    assert last.startswith("calibrate done in 10 s, peak memory ")


def test_long_times_are_readable(plain):
    progress, clock, stream = plain
    with progress.stage("evaluate") as tick:
        tick(1, 4)
        clock.now = 3000.0
        tick(2, 4)
        clock.now = 3660.0
        tick(3, 4)
        clock.now = 3760.0
    assert "evaluate 2/4, 50 min 00 s elapsed, 1 h 40 min remaining" in stream.getvalue()
    assert "evaluate 3/4, 1 h 01 min elapsed" in stream.getvalue()
    assert "done in 1 h 02 min" in stream.getvalue()


def test_work_of_an_earlier_run_does_not_count_as_speed(plain):
    progress, clock, stream = plain
    with progress.stage("evaluate") as tick:
        tick(80, 100)
        clock.now = 10.0
        tick(90, 100)
    assert "evaluate 90/100, 10 s elapsed, 10 s remaining" in stream.getvalue()


def test_a_failed_stage_is_not_called_done(plain):
    progress, _, stream = plain

    def fail():
        with progress.stage("export"):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert stream.getvalue() == "export ...\n"


@pytest.mark.parametrize("totals", [(0, 0), (5, 0), (0, 5)])
@pytest.mark.parametrize("display", ["plain", "rich", "none"])
def test_odd_totals_are_harmless(display, totals):
    with progress_for(display).stage("export") as tick:
        tick(*totals)


def test_display_by_name(capsys):
    with progress_for("plain").stage("x"):
        assert capsys.readouterr().err == "x ...\n"
    capsys.readouterr()
    with progress_for("none").stage("x"):
        pass
    assert capsys.readouterr().err == ""


def test_auto_is_plain_without_a_terminal():
    code = (
        "from mars_export.common.progress import progress_for\n"
        "progress = progress_for('auto')\n"
        "with progress.stage('export'): progress.note('hello')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    start, note, end = done.stderr.splitlines()
    assert (start, note) == ("export ...", "hello")
    assert end.startswith("export done in 0 s")
    assert done.stdout == ""


def test_rich_draws_a_bar_on_a_terminal():
    stream = io.StringIO()
    progress = Progress(Console(file=stream, force_terminal=True, width=100))
    with progress.stage("[3/4] evaluate") as tick:
        tick(3, 4)
        progress.note("half way [brackets stay] :smile:")
    assert "[3/4] evaluate" in stream.getvalue()
    assert "3/4" in stream.getvalue()
    assert "half way [brackets stay] :smile:" in stream.getvalue()
    assert "evaluate done in 0 s" in stream.getvalue()
