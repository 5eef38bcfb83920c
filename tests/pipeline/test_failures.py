"""Problems of the disk become one line; real ones where the system lets a test make them."""

import errno
import subprocess
import sys

import pytest

from mars_export.common.disk_errors import clear_disk_errors
from mars_export.common.errors import ExportError


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (
            OSError(errno.ENOSPC, "x", "/a/b"),
            "cannot write /a/b: No space left on device; free some",
        ),
        (OSError(errno.EROFS, "x", "/a"), "cannot write /a: Read-only file system; choose ano"),
        (
            PermissionError(errno.EACCES, "x", "/a"),
            "cannot write /a: Permission denied; choose an",
        ),
        (OSError(errno.ELOOP, "x", "/a"), "cannot write /a: Too many levels of symbolic links; ch"),
        (ValueError("embedded null byte"), "'out' holds a NUL character; correct it"),
        (
            RuntimeError("Error while serializing: I/O error: No space left (os error 28)"),
            "cannot write out: No space left on device; free some space",
        ),
    ],
)
def test_one_line_that_says_what_to_do(error, message, tmp_path):
    def fail():
        with clear_disk_errors("out"):
            raise error

    with pytest.raises(ExportError, match=message) as caught:
        fail()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "error", [OSError("strange"), ValueError("bug"), FileNotFoundError(2, "x")]
)
def test_everything_else_passes(error):
    def fail():
        with clear_disk_errors("out"):
            raise error

    with pytest.raises(type(error)) as caught:
        fail()
    assert caught.value is error


LIMITED = """
import resource, signal, sys
from pathlib import Path
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))
import torch
from safetensors.torch import save_file
from mars_export.common.disk_errors import clear_disk_errors
target = Path(sys.argv[2])
with clear_disk_errors(target):
    if sys.argv[1] == "python":
        (target / "file").write_bytes(bytes(100_000))
    else:
        save_file({"x": torch.zeros(100_000)}, target / "file")
"""


@pytest.mark.parametrize("writer", ["python", "safetensors"])
def test_a_write_that_the_system_refuses(writer, tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, writer, str(tmp_path)], capture_output=True, text=True
    )
    assert "ExportError: cannot write" in done.stderr
    assert "File too large" in done.stderr
