"""The command as a process of its own: start-up, signals, streams and exit codes."""

import os
import signal
import subprocess
import sys
import time

import pytest

STARTUP = """
import sys
from mars_export.cli.main import main
try:
    main(["--help"])
finally:
    heavy = {"torch", "transformers", "numpy", "PIL", "huggingface_hub", "rich"} & set(sys.modules)
    print(sorted(heavy), len(sys.modules), file=sys.stderr)
"""


def test_help_is_quick_and_imports_nothing_heavy():
    """Modules are counted, not seconds, which say more about what else the machine does."""
    done = subprocess.run([sys.executable, "-c", STARTUP], capture_output=True, text=True)
    assert done.returncode == 0
    assert "--model X" in done.stdout
    heavy, _, modules = done.stderr.rpartition(" ")
    assert heavy == "[]"
    assert int(modules) < 450, "344 in December 2026; torch alone is more than 1000"


INTERRUPTED = """
import signal, sys, time
from pathlib import Path
from support import slow_run
from mars_export.cli import main as command
from mars_export.cli.export import export

def slow(ctx, values, as_json):
    slow_run.make(Path(sys.argv[1]), Path(sys.argv[2]), 0.02)

import mars_export.cli.export
mars_export.cli.export.export = slow
command.main(["--model", "x"])
"""


@pytest.mark.parametrize(
    ("sent", "code", "word"),
    [(signal.SIGINT, 130, "stopped"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_signal_keeps_finished_stages_and_says_so(tmp_path, sent, code, word):
    from support.slow_run import NAMES, make

    output, log = tmp_path / "out", tmp_path / "log"
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTED, str(output), str(log)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stderr=subprocess.PIPE,
        text=True,
        # A shell lets its background jobs ignore Ctrl-C, and children inherit that.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while process.poll() is None and (not log.exists() or "two" not in log.read_text()):
        time.sleep(0.01)
    process.send_signal(sent)
    _, errors = process.communicate()
    assert process.returncode == code
    assert errors.strip() == (
        f"mars-export: {word}; run the same command again (finished work is not repeated)"
    )
    assert not output.exists()
    assert not (tmp_path / ".out.mars-export" / "made" / "two").exists()
    make(output, log)
    assert log.read_text().split() == ["one", "two", *NAMES[1:]]


@pytest.mark.parametrize(
    ("error", "code", "line"),
    [
        ("ZeroDivisionError('hf_secret')", 1, "internal error: ZeroDivisionError: ***; "),
        ("RecursionError", 1, "internal error: RecursionError; "),
        ("MemoryError", 2, "error: memory ran out; "),
    ],
)
def test_a_bug_is_one_line_and_its_traceback_is_in_a_file(tmp_path, error, code, line):
    program = (
        "from mars_export.cli import export, main\n"
        f"def broken(ctx, values, as_json): raise {error}\n"
        "export.export = broken\n"
        "main.main(['--model', 'x'])"
    )
    env = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, env=env)
    assert done.returncode == code
    (said,) = done.stderr.splitlines()
    assert said.startswith(f"mars-export: {line}")
    logs = list(tmp_path.glob("mars-export-*.log"))
    assert len(logs) == (code == 1)
    for log in logs:
        assert f"(details: {log})" in said
        assert "Traceback" in log.read_text()
        assert "in broken" in log.read_text()
        assert "hf_secret" not in log.read_text()


def test_python_m_is_the_same_command():
    done = subprocess.run(
        [sys.executable, "-m", "mars_export", "--version"], capture_output=True, text=True
    )
    assert done.stdout.startswith("mars-export, version ")
