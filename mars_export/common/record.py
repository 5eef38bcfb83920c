"""What is written to disk as JSON: frozen, without unknown keys, of a known schema version."""

import hashlib
import re
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

__all__ = [
    "NO_DIGEST",
    "Record",
    "VersionedRecord",
    "first_problem",
    "own_digest",
    "with_own_digest",
]

NO_DIGEST: Final = "0" * 64
"""In place of a digest that is not known yet."""


class Record(BaseModel):
    """A part of a file that this package writes and reads."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class VersionedRecord(Record):
    """A whole file, which says by `schema_version` how it is read.

    A subclass states the version that it writes as the field's default, and overrides `upgraded`
    where it can read older ones.

    Raises:
        pydantic.ValidationError: if the version is one that this release cannot read, or if JSON
            states none.
    """

    schema_version: int = 1

    @classmethod
    def upgraded(cls, raw: dict[str, Any]) -> dict[str, Any]:
        """A record of another version, in the shape of the current one.

        Raises:
            ValueError: if there is no way from its version to this one.
        """
        current = cls.model_fields["schema_version"].default
        raise ValueError(
            f"schema version {raw.get('schema_version', 'none')!r} is not {current}, the one that "
            "this release of mars-export reads; make the file again, or install the release that "
            "wrote it"
        )

    @model_validator(mode="before")
    @classmethod
    def _read_by_version(cls, raw: Any, info: ValidationInfo) -> Any:
        current = cls.model_fields["schema_version"].default
        unstated = None if info.mode == "json" else current
        if isinstance(raw, dict) and raw.get("schema_version", unstated) != current:
            return cls.upgraded(raw)
        return raw


def own_digest(raw: bytes, field: str) -> str:
    """SHA-256 of a JSON file with zeros in its field for just this digest.

    It shows damage, not forgery.
    """
    return hashlib.sha256(_replaced(raw, field, NO_DIGEST)).hexdigest()


def with_own_digest(record: Record, field: str) -> str:
    """The JSON of a record whose field holds the digest of the text around it."""
    blank = record.model_copy(update={field: NO_DIGEST})
    raw = (blank.model_dump_json(indent=2) + "\n").encode()
    return _replaced(raw, field, own_digest(raw, field)).decode()


def _replaced(raw: bytes, field: str, digest: str) -> bytes:
    return re.sub(rb'(?<="%s": ")[0-9a-f]{64}(?=")' % field.encode(), digest.encode(), raw, count=1)


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a record, as `where: what`, on one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    what = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{where}: {what}" if where else what
