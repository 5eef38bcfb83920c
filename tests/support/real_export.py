"""A real export of a tiny base, without its evaluation; tests run it in processes to kill."""

import time
from pathlib import Path

from mars_export.checkpoint.seal import write_seal
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.common.disk_errors import clear_disk_errors
from mars_export.common.errors import ExportError
from mars_export.common.progress import progress_for
from mars_export.common.workspace import RUN_NAME, Stage, Workspace, digests
from support import tiny

SOURCE = tiny.source("gemma3")  # imports what processes must not import again


def stages(root: Path, base: Path, calibration: Path, pause: float, setting: int) -> list[Stage]:
    def prepare(tick):
        (root / "notes").mkdir()
        (root / "notes" / "0").write_text("0")

    def write(tick):
        def slowly(done, total):
            time.sleep(pause)
            tick(done, total)

        write_checkpoint(
            base, root / "made", source=SOURCE, calibration_dir=calibration,
            progress=slowly,
        )  # fmt: skip

    inputs = {"setting": setting}
    return [Stage("one", {}, ("notes",), prepare), Stage("two", inputs, ("made",), write)]


def make(output: Path, base: Path, calibration: Path, pause: float = 0.0, setting: int = 0) -> None:
    """Export `base` to `output`, replacing what is there.

    Raises:
        ExportError: as the program does.
    """
    with clear_disk_errors(output), Workspace.open(output) as workspace:
        todo = stages(workspace.root, base, calibration, pause, setting)
        digest = digests(todo)[-1]
        if workspace.is_published(digest):
            workspace.discard()
            return
        workspace.run(todo, progress_for("none"))
        workspace.publish(
            "made", digest, overwrite=True, finish=lambda made: write_seal(made, RUN_NAME)
        )


def announce(begun, *arguments) -> None:
    """`make`, saying when it begins."""
    begun.set()
    make(*arguments)


def say(answers, barrier, *arguments) -> None:
    """`make` beside others; puts `made` or what it said into a queue."""
    barrier.wait()
    try:
        make(*arguments)
        answers.put("made")
    except ExportError as error:
        answers.put(str(error))
