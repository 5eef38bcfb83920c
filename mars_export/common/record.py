"""What is written to disk as JSON: frozen, without unknown keys, of a known schema version."""

from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError, ValidationInfo, model_validator

__all__ = ["Record", "VersionedRecord", "first_problem"]


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


def first_problem(error: ValidationError) -> str:
    """The first thing that is wrong with a record, as `where: what`, on one line."""
    first = error.errors()[0]
    where = ".".join(map(str, first["loc"]))
    what = " ".join(first["msg"].removeprefix("Value error, ").split())
    return f"{where}: {what}" if where else what
