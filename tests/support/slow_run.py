"""A run of three quick stages that leave many files; tests kill it at any moment.

    python slow_run.py OUTPUT LOG [SECONDS_PER_FILE]

LOG gets one line per stage that begins, so that a test sees what was run again.
"""

import sys
import time
from pathlib import Path

from mars_export.common.progress import progress_for
from mars_export.common.workspace import Stage, Workspace, digests

FILES = 20
NAMES = ("one", "two", "three")


def stages(root: Path, log: Path, pause: float = 0.0, setting: int = 0) -> list[Stage]:
    """Each stage writes its files into `made/NAME`."""

    def stage(name: str) -> Stage:
        def run(tick):
            with log.open("a") as stream:
                stream.write(f"{name}\n")
            folder = root / "made" / name
            folder.mkdir(parents=True)
            for number in range(FILES):
                (folder / str(number)).write_text(f"{name} {number} {setting}")
                tick(number, FILES)
                time.sleep(pause)

        return Stage(name, {"setting": setting}, (f"made/{name}",), run)

    return [stage(name) for name in NAMES]


def make(
    output: Path, log: Path, pause: float = 0.0, setting: int = 0, *, overwrite: bool = False
) -> bool:
    """Run to the end; False if the output was there already."""
    with Workspace.open(output) as workspace:
        todo = stages(workspace.root, log, pause, setting)
        digest = digests(todo)[-1]
        if workspace.is_published(digest):
            workspace.discard()
            return False
        workspace.check_replaceable(overwrite)
        workspace.run(todo, progress_for("none"))
        (workspace.root / "made" / "steering_manifest.json").write_text("{}")
        workspace.publish("made", digest, overwrite=overwrite)
        return True


if __name__ == "__main__":
    make(Path(sys.argv[1]), Path(sys.argv[2]), float(sys.argv[3]), overwrite=True)
