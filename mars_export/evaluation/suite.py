"""Suites: the requests that are run, read from a JSON-lines file. Free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mars_export.common.errors import ExportError
from mars_export.common.paths import require_inside
from mars_export.common.record import first_problem
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.suites.media import open_picture
from mars_export.inputs.readers import json_lines
from mars_export.inputs.requests import Media, Request, modality_of

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = ["SUITE_NAME", "Sample", "Suite", "merged", "read_suite", "suite_of", "unique"]

SUITE_NAME: Final = "suite.jsonl"
"""Name of a suite's file in its folder."""


class MediaFiles(BaseModel):
    """Where one medium of a request is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Modality
    path: str | None = None
    """Relative to the suite; of an image."""
    paths: list[str] | None = Field(default=None, min_length=1)
    """Of the frames of a video, in order."""

    @property
    def files(self) -> list[str]:
        """All paths, in order."""
        return [self.path] if self.path is not None else list(self.paths or ())

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> MediaFiles:
        needed = {"image": "path", "video": "paths"}.get(self.type)
        if needed is None:
            raise ValueError(f"a medium cannot be {self.type}")
        if self.model_fields_set & {"path", "paths"} != {needed}:
            raise ValueError(f"a medium of type {self.type} has `{needed}` and nothing else")
        return self


class Sample(BaseModel):
    """One request and its label: a line of a suite's file, or a variant of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(min_length=1)
    modality: Modality
    harmful: bool
    split: Literal["calibration", "evaluation"]
    prompt: str = Field(min_length=1)
    media: list[MediaFiles] = []
    """What is shown before the prompt. The keys `image`, a path, and `video`, a list of paths of
    frames, say the same of a single medium."""
    category: str | None = None
    """Kind of request within the suite; numbers are given for each."""
    intent: str | None = Field(default=None, min_length=1)
    """What the request is after where its pictures say it, in words, for judges that cannot see."""
    suite: str = ""
    """Name of the suite that it comes from."""
    variant: str = ""
    """Control or attack that it is put through; empty for the request as it is."""
    group: str = ""
    """Id of the request as it is, for a variant of it."""

    @property
    def types(self) -> list[Modality]:
        """Modalities of its media, in order."""
        return [medium.type for medium in self.media]

    @property
    def files(self) -> list[str]:
        """Paths of all its media, in order."""
        return [path for medium in self.media for path in medium.files]

    @model_validator(mode="before")
    @classmethod
    def _single_media_have_keys_of_their_own(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        named = {"image": ("path", raw.get("image")), "video": ("paths", raw.get("video"))}
        media = [{"type": t, key: value} for t, (key, value) in named.items() if value is not None]
        if media and raw.get("media"):
            raise ValueError("give `media`, or `image` or `video`, not both")
        rest = {key: value for key, value in raw.items() if key not in named}
        return {**rest, "media": media} if media else rest

    @model_validator(mode="after")
    def _has_the_modality_of_its_media(self) -> Sample:
        modality = modality_of(self.types)
        if not self.variant and modality != self.modality:
            raise ValueError(f"`modality` is {self.modality}, but its media make it {modality}")
        for path in self.files:
            require_inside(path)
        return self


_OWN_KEYS: Final = frozenset(Sample.model_fields) - {"suite", "variant", "group"} | {
    "image",
    "video",
}
"""What a line of a suite's file may say."""


@dataclass(frozen=True)
class Suite:
    """Requests with their labels, and where their pictures come from.

    Attributes:
        name: For people.
        sha256: Digest of the suite's file, followed by the digests of its pictures in order.
        samples: Every line, both splits, in file order; ids are unique.
        picture: Opens a path of a sample as an RGB picture.
        license: Of the requests; empty when it is not known.
        origin: `packaged`, `file`, `hub:REPO@COMMIT`, or `known:NAME` for a benchmark that ships
            and `known:NAME=FILE` for the user's copy of one.
        parts: The suites that this one joins; empty for one that is read from a file.
    """

    name: str
    sha256: str
    samples: tuple[Sample, ...]
    picture: Callable[[str], Image] = field(repr=False)
    license: str = ""
    origin: str = "packaged"
    parts: tuple[Suite, ...] = ()

    def evaluation_samples(self, modalities: Sequence[Modality]) -> list[Sample]:
        """The samples to evaluate a model on that takes these modalities, in order.

        Args:
            modalities: In the order of the model's steering tensors, which decides what a request
                with several media counts as.
        """
        return [
            s.model_copy(update={"modality": modality_of(s.types, modalities)})
            for s in self.samples
            if s.split == "evaluation" and {s.modality, *s.types} <= set(modalities)
        ]

    def request(self, sample: Sample) -> Request:
        """The sample with its media opened.

        Raises:
            ExportError: A picture cannot be read.
        """
        if self.parts:
            return self._owners[sample.id].request(sample)
        return Request(sample.prompt, tuple(map(self._open, sample.media)))

    def _open(self, medium: MediaFiles) -> Media:
        pictures = tuple(map(self.picture, medium.files))
        return Media(medium.type, pictures[0] if medium.type == "image" else pictures)

    @cached_property
    def _owners(self) -> dict[str, Suite]:
        return {sample.id: part for part in self.parts for sample in part.samples}


def merged(suites: Sequence[Suite]) -> Suite:
    """Several suites as one, in this order.

    Raises:
        ExportError: Two suites share a name, or an id.
    """
    if len(suites) == 1:
        return suites[0]
    names = [suite.name for suite in suites]
    repeated = next((name for name in names if names.count(name) > 1), None)
    if repeated is not None:
        raise ExportError(f"two suites are called {repeated}; give one as NAME=PATH")
    whole = hashlib.sha256("".join(suite.sha256 for suite in suites).encode()).hexdigest()
    samples = unique((s, f"suite {suite.name}") for suite in suites for s in suite.samples)
    return Suite(" + ".join(names), whole, samples, _no_picture, parts=tuple(suites))


def unique(samples: Iterable[tuple[Sample, str]]) -> tuple[Sample, ...]:
    """The samples, whose ids must differ.

    Args:
        samples: Each with where it stands, for the message.

    Raises:
        ExportError: An id is used twice.
    """
    by_id: dict[str, Sample] = {}
    for sample, where in samples:
        if sample.id in by_id:
            raise ExportError(f"{where}: the id {sample.id!r} was used before; make ids unique")
        by_id[sample.id] = sample
    return tuple(by_id.values())


def read_suite(path: Path, name: str | None = None) -> Suite:
    """Read `suite.jsonl`, checking everything but the pixels.

    Args:
        path: JSON lines, one `Sample` each; paths in it are relative to its folder.
        name: For the report; None for that of the file, or of its folder.

    Raises:
        ExportError: The file cannot be read, or a line is not valid; names file and line.
    """
    try:
        raw = path.read_bytes()
        text = raw.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path}: the suite cannot be read ({error}); give a JSON-lines file"
        ) from error
    name = name or (path.parent.resolve().name if path.stem == "suite" else path.stem)
    samples = (
        (_sample(line, name, f"{path}, line {n}"), f"{path}, line {n}")
        for n, line in json_lines(text)
    )
    return suite_of(path, samples, name)


def suite_of(table: Path, samples: Iterable[tuple[Sample, str]], name: str) -> Suite:
    """The suite that a table makes with the pictures beside it.

    Args:
        table: Its file; paths of samples are relative to its folder.
        samples: Each with where it stands, for messages.
        name: For the report.

    Raises:
        ExportError: There is no sample, an id is used twice, or a picture is missing or lies
            outside the folder.
    """
    folder = table.parent
    checked = unique((_with_files(sample, folder, where), where) for sample, where in samples)
    if not checked:
        raise ExportError(f"{table}: the suite is empty; give one record for each request")
    whole = hashlib.sha256(table.read_bytes())
    for path in (path for sample in checked for path in sample.files):
        whole.update(hashlib.sha256((folder / path).read_bytes()).digest())

    def picture(path: str) -> Image:
        return open_picture(folder / path, str(folder / path))

    return Suite(name, whole.hexdigest(), checked, picture, origin="file")


def _sample(line: str, suite: str, where: str) -> Sample:
    try:
        record = json.loads(line)
        if isinstance(record, dict):
            _require_own_keys(record, where)
            record["suite"] = suite
        return Sample.model_validate(record)
    except ValidationError as error:
        raise ExportError(f"{where}: {first_problem(error)}; correct the record") from error
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise ExportError(f"{where}: not JSON ({reason}); write one JSON record a line") from error


def _require_own_keys(record: dict[str, Any], where: str) -> None:
    unknown = sorted(record.keys() - _OWN_KEYS)
    if unknown:
        raise ExportError(f"{where}: there is no key {unknown[0]}; correct the record")


def _with_files(sample: Sample, folder: Path, where: str) -> Sample:
    """The sample, whose files exist in the folder."""
    root = folder.resolve()
    for path in sample.files:
        target = (root / path).resolve()
        if not target.is_relative_to(root):
            raise ExportError(
                f"{where}: {path} leads out of the suite's folder; copy the picture into it"
            )
        if not _is_file(target):
            raise ExportError(
                f"{where}: the picture {path} does not exist; add it or correct the path"
            )
    return sample


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _no_picture(path: str) -> Image:
    raise AssertionError(f"{path}: a joined suite asks its parts for pictures")
