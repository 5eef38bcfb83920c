"""A run that can be stopped at any moment: finished stages stay, the output appears at once.

All work happens in a hidden directory beside the output, on the same file system:

    .NAME.mars-export/
      lock        held while a run works here
      run.json    the finished stages, each with a digest of everything that it depends on
      ...         what the stages made

A stage counts as finished once `run.json` names it; whatever an unfinished one left is deleted
before it runs again, unless the stage itself can go on from there. The output is one rename.
"""

import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock, Timeout
from pydantic import BaseModel, ValidationError

from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.progress import Progress, Tick
from mars_export.common.record import Record, VersionedRecord
from mars_export.common.vocabulary import MANIFEST_NAME

__all__ = ["RUN_NAME", "Stage", "Workspace", "digests"]

RUN_NAME: Final = ".export_run.json"
"""In a published directory: the digest of what it was made from, so that a rerun knows it."""

_STATE: Final = "run.json"
_LOCK: Final = "lock"
_LOCK_TIMEOUT: Final = 0.2
"""Seconds; enough for another try when a run that ends removes the file that was just opened."""
_REPLACED: Final = "replaced"


@dataclass(frozen=True)
class Stage:
    """One step of a run."""

    name: str
    inputs: Mapping[str, object]
    """Everything besides earlier stages that the result depends on; JSON values."""
    outputs: tuple[str, ...]
    """What it makes, relative to the workspace."""
    run: Callable[[Tick], None]
    resumes: bool = False
    """Whether it goes on from outputs that it left half-done, and knows those of other inputs."""


class FinishedStage(Record):
    """An entry of `run.json`."""

    name: str
    digest: str
    seconds: float


class _State(VersionedRecord):
    stages: tuple[FinishedStage, ...] = ()


class _Published(VersionedRecord):
    digest: str


def digests(stages: Sequence[Stage]) -> list[str]:
    """A digest per stage of its own inputs and those of all stages before it."""
    chain: list[str] = []
    for stage in stages:
        link = json.dumps([chain[-1:], stage.name, dict(stage.inputs)], sort_keys=True)
        chain.append(hashlib.sha256(link.encode()).hexdigest())
    return chain


class Workspace:
    """The hidden directory of one output, while this process holds its lock."""

    def __init__(
        self, output: Path, made: str = MANIFEST_NAME, kind: str = "steered checkpoint"
    ) -> None:
        self.output, self._made, self._kind = output, made, kind
        self.root = output.parent / f".{output.name}.mars-export"

    @classmethod
    @contextmanager
    def open(
        cls, output: Path, made: str = MANIFEST_NAME, kind: str = "steered checkpoint"
    ) -> Iterator["Workspace"]:
        """Make or reopen the workspace of `output` and lock it.

        Args:
            output: Directory to make.
            made: The file by which a directory is known as an earlier output.
            kind: What such a directory is called.

        Raises:
            ExportError: if another run is working on the same output.
            OSError: if the workspace cannot be made.
        """
        workspace = cls(Path(os.path.abspath(output)), made, kind)  # noqa: PTH100 - keeps symbolic links
        lock = workspace._lock()
        try:
            workspace._recover()
            yield workspace
        finally:
            if not workspace._finished():
                workspace._remove()
            lock.release()  # which deletes the lock file on Windows
            with suppress(OSError):  # finished stages, or another run that has begun
                workspace.root.rmdir()

    def run(self, stages: Sequence[Stage], progress: Progress) -> None:
        """Run the stages that are not finished yet, in order.

        Raises:
            Exception: whatever a stage raises; its partial outputs are deleted.
        """
        chain = digests(stages)
        kept = self._still_valid(stages, chain, progress)
        for number, stage in enumerate(stages[len(kept) :], start=len(kept)):
            self._clear(stages[number + 1 :])
            self._clear_partial(stage)
            started = time.monotonic()
            try:
                with progress.stage(f"[{number + 1}/{len(stages)}] {stage.name}") as tick:
                    stage.run(tick)
            except BaseException:
                self._clear_partial(stage)
                raise
            seconds = round(time.monotonic() - started, 3)
            kept.append(FinishedStage(name=stage.name, digest=chain[number], seconds=seconds))
            self._save(kept)

    def publish(
        self,
        made: str,
        digest: str,
        *,
        overwrite: bool,
        finish: Callable[[Path], object] = lambda _: None,
    ) -> None:
        """Move a finished directory to the output.

        Args:
            made: The directory, relative to the workspace.
            digest: Of everything it was made from; see `is_published`.
            overwrite: Whether it may replace another steered checkpoint.
            finish: Called with the directory after its last file, `RUN_NAME`, was written.

        Raises:
            ExportError: if something is there that must stay; the finished stages are kept.
        """
        self.check_replaceable(overwrite)  # again: files may have come during a long run
        source, replaced = self.root / made, self.root / _REPLACED
        _write_record(source / RUN_NAME, _Published(digest=digest))
        finish(source)
        if _has_entries(self.output):
            self.output.rename(replaced)
        source.rename(self.output)
        self.discard()

    def discard(self) -> None:
        """Forget the finished stages; closing the workspace then removes it."""
        (self.root / _STATE).unlink(missing_ok=True)

    def is_published(self, digest: str) -> bool:
        """Whether the output is there already, made from just these inputs."""
        try:
            record = (self.output / RUN_NAME).read_bytes()
            return _Published.model_validate_json(record).digest == digest
        except (OSError, ValidationError):
            return False

    def check_replaceable(self, overwrite: bool) -> None:
        """Check that the output is free or may be replaced.

        Raises:
            ExportError: if something is there that must stay.
        """
        if not os.path.lexists(self.output):
            return
        if self.output.is_symlink() or not self.output.is_dir():
            raise ExportError(f"{self.output} is a file or a link; choose another --output")
        if not _has_entries(self.output):
            return
        if not (self.output / self._made).is_file():
            raise ExportError(
                f"{self.output} holds files that mars-export did not make; choose another --output"
            )
        if not overwrite:
            raise ExportError(
                f"{self.output} holds another {self._kind}; give --overwrite to replace it "
                "or choose another --output"
            )

    def _lock(self) -> FileLock:
        lock = FileLock(self.root / _LOCK, timeout=_LOCK_TIMEOUT)
        while True:
            try:
                self.root.mkdir(parents=True, exist_ok=True)
            except (FileNotFoundError, FileExistsError) as error:  # /proc, a link to nowhere
                raise ExportError(
                    f"cannot make {self.root.parent}; choose another --output"
                ) from error
            try:
                lock.acquire()
            except FileNotFoundError:  # a run that just ended removed its workspace
                continue
            except Timeout as error:
                raise ExportError(
                    f"another run is making {self.output}; wait for it or choose another --output"
                ) from error
            return lock

    def _recover(self) -> None:
        """Finish or undo a replacement that was killed between its two renames."""
        replaced = self.root / _REPLACED
        if replaced.exists():
            if self.output.exists():
                shutil.rmtree(replaced)
            else:
                replaced.rename(self.output)

    def _remove(self) -> None:
        """Delete the workspace, the lock last: only then may another run begin here."""
        for path in self.root.iterdir():
            if path.is_dir():
                shutil.rmtree(path, ignore_errors=True)
            elif path.name != _LOCK:
                path.unlink()
        with suppress(PermissionError):  # Windows deletes no open file
            (self.root / _LOCK).unlink()

    def _finished(self) -> tuple[FinishedStage, ...]:
        try:
            return _State.model_validate_json((self.root / _STATE).read_bytes()).stages
        except (OSError, ValidationError):
            return ()

    def _still_valid(
        self, stages: Sequence[Stage], chain: Sequence[str], progress: Progress
    ) -> list[FinishedStage]:
        """The finished stages that these settings would repeat; the others are forgotten."""
        before = self._finished()
        kept = []
        for stage, digest, finished in zip(stages, chain, before, strict=False):
            if finished.digest != digest or not self._has_outputs(stage):
                break
            kept.append(finished)
        if kept:
            progress.note(f"resuming after {kept[-1].name}, finished in an earlier run")
        if len(kept) < len(before):
            stale = before[len(kept)].name
            progress.note(
                f"{stale} of an earlier run does not fit these settings: again from there"
            )
            self._save(kept)
        return kept

    def _has_outputs(self, stage: Stage) -> bool:
        return all((self.root / output).exists() for output in stage.outputs)

    def _clear_partial(self, stage: Stage) -> None:
        if not stage.resumes:
            self._clear([stage])

    def _clear(self, stages: Sequence[Stage]) -> None:
        for path in (self.root / output for stage in stages for output in stage.outputs):
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)

    def _save(self, stages: Sequence[FinishedStage]) -> None:
        _write_record(self.root / _STATE, _State(stages=tuple(stages)))


def _has_entries(directory: Path) -> bool:
    return directory.is_dir() and any(directory.iterdir())


def _write_record(path: Path, record: BaseModel) -> None:
    write_atomically(path, record.model_dump_json(indent=2) + "\n")
