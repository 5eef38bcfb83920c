"""What a verification found, as a record. Free of torch."""

from typing import Literal

from pydantic import Field

from mars_export.common.record import Record, VersionedRecord

__all__ = ["Check", "CheckFailedError", "CheckSkippedError", "Verification"]


class CheckFailedError(Exception):
    """Raised by a check with what is wrong, one sentence each."""

    def __init__(self, *problems: str) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


class CheckSkippedError(Exception):
    """Raised by a check that cannot be made, with the reason."""


class Check(Record):
    """One question and its answer."""

    name: str
    status: Literal["passed", "failed", "skipped"]
    detail: str
    """What was compared, or why it was not."""
    problems: tuple[str, ...] = ()
    """What is wrong, one sentence each."""


class Verification(VersionedRecord):
    """Every check of a checkpoint."""

    target: str
    """Directory or repository, as given."""
    commit: str | None
    """Of the repository: what was verified, and what to pin."""
    base: str
    """Name of the base model that the manifest states."""
    base_commit: str | None
    steering_sha256: str
    checks: list[Check]
    notes: list[str] = Field(default_factory=list)
    """What the calibration missed and found, as its record says; no check fails by it."""

    @property
    def passed(self) -> bool:
        """Whether no check failed; some may have been skipped."""
        return all(check.status != "failed" for check in self.checks)
