"""`steering_manifest.json`: what a steered directory holds, and its origin. Free of torch."""

import json
from pathlib import Path
from typing import Annotated, Final, Literal

from pydantic import AfterValidator, Field, ValidationError

from mars_export.common.errors import ExportError
from mars_export.common.paths import require_inside
from mars_export.common.record import (
    NO_DIGEST,
    Record,
    VersionedRecord,
    first_problem,
    with_own_digest,
)
from mars_export.common.vocabulary import MANIFEST_NAME
from mars_export.methods.base import ArtefactRecord

__all__ = [
    "MANIFEST_NAME",
    "OWN_DIGEST",
    "BaseModelSource",
    "Derivation",
    "FileEntry",
    "Inside",
    "Manifest",
    "TensorEntry",
]

Inside = Annotated[str, AfterValidator(require_inside)]
"""A path that stays inside the directory."""

OWN_DIGEST: Final = "manifest_sha256"
"""The manifest's field for the digest of itself."""


class Derivation(Record):
    """The steered checkpoint whose weights, mostly trained on, another one was made from."""

    name: str
    """Its directory, for people."""
    steering_sha256: str
    """Digest of its steering, which training keeps: the one in the manifest of its parent."""
    parent: str | None = None
    """Directory of the steered checkpoint before training, for people; None if it was not named."""
    base: str | None = None
    """The model that was steered first: repository or name; None if it is not known."""
    revision: str | None = None
    """Commit of that repository."""
    trained: bool = True
    """Whether its weights are others than those that were steered first, or may be."""
    calibrated: bool = True
    """Whether its weights were calibrated; False if the steering of before was kept."""
    suite: str | None = None
    """Digest of the suite that was kept with it; None if another was named."""


class BaseModelSource(Record):
    """The model that was steered."""

    repo: str | None
    """Hub repository, `org/name`; None for a local directory."""
    revision: str | None
    """Commit of that repository."""
    name: str
    """Repository or directory name, for people."""
    model_type: str
    architecture: str
    """Native class, for example `Gemma3ForConditionalGeneration`."""
    license: str
    license_name: str | None = None
    license_link: str | None = None
    pipeline_tag: str
    languages: list[str] = Field(default_factory=list)
    gated: str | bool = False
    private: bool = False
    bundled: bool = False
    """Whether it is a toy model of the package, which `--model organism:NAME` takes."""
    derived_from: Derivation | None = None
    """Set where the base is itself a steered checkpoint that was trained on."""
    notes: list[str] = Field(default_factory=list)
    """`evaluation_notes` of its card: what readers of an evaluation should know."""


class FileEntry(Record):
    """One file of the directory."""

    path: Inside
    sha256: str
    size: int
    """Bytes."""
    origin: Literal["base", "base-rewritten", "added"]
    """`base`: byte for byte from the base model; `base-rewritten`: derived from a base file;
    `added`: written by mars-export."""
    base_path: Inside | None = None
    """Name of the file in the base model, when it comes from there."""


class TensorEntry(Record):
    """One steering tensor."""

    name: str
    shape: list[int]
    dtype: str
    norm: float


class Manifest(VersionedRecord):
    """The whole record of what an export wrote; what comes later is in the seal."""

    schema_version: int = 2
    manifest_sha256: str = NO_DIGEST
    """SHA-256 of this very file with 64 zeros here; shows damage, not forgery."""
    created: str
    """UTC time, ISO 8601."""
    base: BaseModelSource
    family_inspected: bool = False
    """Whether the model family was worked out from its classes, without tests of ours."""
    family_notes: list[str] = Field(default_factory=list)
    """Limits of the family that users must know, one sentence each."""
    steering_sha256: str
    """Digest of the steering tensors, checked by the host at load."""
    modeling_file: Inside
    tensors: list[TensorEntry]
    files: list[FileEntry]
    """Every file but the manifest, the evaluation and the card."""
    calibration: ArtefactRecord
    versions: dict[str, str]
    """`mars-export`, `torch`, `transformers`, `safetensors`, `python`."""

    def text(self) -> str:
        """The file's content, with its checksum."""
        return with_own_digest(self, OWN_DIGEST)

    @classmethod
    def read(cls, directory: Path) -> "Manifest":
        """Read the manifest of a steered directory.

        Raises:
            ExportError: if there is none or it is not valid.
        """
        path, raw = directory / MANIFEST_NAME, b""
        try:
            raw = path.read_bytes()
            return cls.model_validate_json(raw)
        except OSError as error:
            if not directory.exists():
                raise ExportError(f"there is no directory {directory}; check the path") from error
            raise ExportError(
                f"{directory} is not a steered checkpoint: {MANIFEST_NAME} cannot be read; "
                "make one with `mars-export --model BASE --output DIR`, or of a steered model that "
                "was trained on with `mars-export adopt` or `mars-export recalibrate`"
            ) from error
        except ValidationError as error:
            writer = f" (written by mars-export {version})" if (version := _writer(raw)) else ""
            raise ExportError(
                f"{path}{writer}: {first_problem(error)}; export the model again"
            ) from error


def _writer(raw: bytes) -> str | None:
    """The version of mars-export that a manifest of any schema says it was written by."""
    try:
        version = json.loads(raw)["versions"]["mars-export"]
    except (ValueError, LookupError, TypeError, RecursionError):
        return None
    return version if isinstance(version, str) else None
