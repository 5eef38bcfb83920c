"""A checkpoint under verification: its files, and what its export wrote."""

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from huggingface_hub.errors import GatedRepoError

from mars_export.checkpoint.config import unsteered_config
from mars_export.checkpoint.expected import CALIBRATION, Base, ExpectedFiles, expected
from mars_export.checkpoint.files import CheckpointFiles
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.families import Family, families
from mars_export.families.directory import read_config
from mars_export.hub.hub_errors import unreachable
from mars_export.hub.repository import Repository
from mars_export.methods.base import RECORD_NAME, TENSORS_NAME, Artefact
from mars_export.verification.report import CheckFailedError, CheckSkippedError

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """What the checks read.

    Attributes:
        files: Of the checkpoint.
        manifest: Read from it; may be forged.
        offline: Whether the Hub may not be asked about the base.
        progress: Called with (bytes compared, bytes in all).
    """

    files: CheckpointFiles
    manifest: Manifest
    offline: bool = False
    progress: Tick | None = None

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed config.json.

        Raises:
            ExportError: if it cannot be read.
        """
        return read_config(self.files.fetch("config.json").parent)

    @cached_property
    def family(self) -> Family:
        """The family of the base model.

        Raises:
            CheckFailedError: if this version does not know it and cannot work it out.
        """
        model_type = self.manifest.base.model_type
        if model_type in families():
            return families()[model_type]
        if not self.manifest.family_inspected:
            raise CheckFailedError(f"no family {model_type!r} is known to this version")
        from mars_export.families.inspection import inspect_family

        origin = self.files.fetch("config.json").parent
        return inspect_family(unsteered_config(self.config, origin))

    @cached_property
    def artefact(self) -> Artefact:
        """The calibration in the checkpoint.

        Raises:
            CheckFailedError: if it is not the one that the manifest records.
            ExportError: if it cannot be read.
        """
        for name in (TENSORS_NAME, RECORD_NAME):  # a repository downloads what is fetched
            record = self.files.fetch(CALIBRATION + name)
        artefact = Artefact.load(record.parent)
        if artefact.record != self.manifest.calibration:
            raise CheckFailedError("calibration/ is not the calibration that the manifest records")
        return artefact

    @cached_property
    def expected(self) -> ExpectedFiles:
        """The export of this calibration onto the base beneath the checkpoint.

        Raises:
            CheckFailedError: if the family is not known or the calibration another one.
            ExportError: if config.json, index or calibration cannot be read.
        """
        return expected(Base.beneath(self.files, self.manifest, self.family), self.artefact)

    @cached_property
    def published(self) -> ExpectedFiles:
        """The export of this calibration onto the base that the Hub has.

        Raises:
            CheckSkippedError: if the base is not on the Hub, or the Hub does not answer.
            CheckFailedError: if the base cannot be found, so that nothing can be said of it.
        """
        return expected(Base.published(self.base, self.family), self.artefact)

    @property
    def base(self) -> Repository:
        """The base's repository at the commit that the manifest states; raises as `published`."""
        outcome = self._base
        if isinstance(outcome, Repository):
            return outcome
        raise outcome

    @cached_property
    def _base(self) -> Repository | CheckSkippedError | CheckFailedError:
        repo, revision = self.manifest.base.repo, self.manifest.base.revision
        if repo is None:
            return CheckSkippedError(
                "the base was a local directory: nothing published to compare with"
            )
        if self.offline:
            return CheckSkippedError("offline: the Hub was not asked about the base")
        if not re.fullmatch(r"[0-9a-f]{40}", revision or ""):
            return CheckFailedError(f"the manifest names no commit of {repo}")
        try:
            return Repository(repo, revision)
        except ExportError as error:
            cause = error.__cause__
            silent = isinstance(cause, Exception) and unreachable(cause)
            if silent or isinstance(cause, GatedRepoError):
                return CheckSkippedError(str(error))
            return CheckFailedError(f"{error} (--offline leaves this check out)")
