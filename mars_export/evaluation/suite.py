"""Suites: the requests that are run, read from a JSON-lines file. Free of torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mars_export.common.errors import ExportError
from mars_export.common.paths import require_inside
from mars_export.common.vocabulary import Modality

if TYPE_CHECKING:
    from PIL.Image import Image

    from mars_export.inputs.requests import Request

__all__ = ["SUITE_NAME", "Sample", "Suite", "merged", "read_suite", "unique"]

SUITE_NAME: Final = "suite.jsonl"
"""Name of a suite's file in its folder."""


class Line(BaseModel):
    """One line of a suite's file: one request and its label."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(min_length=1)
    modality: Modality
    harmful: bool
    split: Literal["calibration", "evaluation"]
    prompt: str = Field(min_length=1)
    image: str | None
    """Path relative to the suite; for modality `image` only."""
    video: list[str] | None
    """Paths of the frames, relative to the suite; for modality `video` only."""
    category: str | None = None
    """Kind of request within the suite; numbers are given for each."""
    intent: str | None = Field(default=None, min_length=1)
    """What the request is after where its pictures say it, in words, for judges that cannot see."""

    @property
    def pictures(self) -> list[str]:
        """The picture, or the frames in order, or nothing."""
        return [self.image] if self.image is not None else list(self.video or ())

    @model_validator(mode="after")
    def _shows_what_it_says(self) -> Line:
        shown = {"image": self.image is not None, "video": self.video is not None}
        if self.video == []:
            raise ValueError("a video needs at least one frame")
        for name, given in shown.items():
            if given != (self.modality == name):
                verb = "must not give" if given else "must give"
                raise ValueError(f"a request of modality {self.modality} {verb} `{name}`")
        for path in self.pictures:
            require_inside(path)
        return self


class Sample(Line):
    """A request as it is run."""

    suite: str = ""
    """Name of the suite that it comes from."""
    variant: str = ""
    """Control or attack that it is put through; empty for the request as it is."""
    group: str = ""
    """Id of the request as it is, for a variant of it."""


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

    def evaluation_samples(self, modalities: Collection[Modality]) -> list[Sample]:
        """The samples to evaluate a model on that takes these modalities, in order."""
        return [s for s in self.samples if s.split == "evaluation" and s.modality in modalities]

    def request(self, sample: Sample) -> Request:
        """The sample with its pictures opened.

        Raises:
            ExportError: A picture cannot be read.
        """
        from mars_export.inputs.requests import Request

        if self.parts:
            return self._owners[sample.id].request(sample)
        pictures = tuple(self.picture(path) for path in sample.pictures)
        if sample.modality == "video":
            return Request(sample.prompt, video=pictures)
        return Request(sample.prompt, images=pictures)

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
    seen: dict[str, Sample] = {}
    for sample, where in samples:
        _require_new(sample, seen, where)
        seen[sample.id] = sample
    return tuple(seen.values())


def read_suite(path: Path, name: str | None = None) -> Suite:
    """Read `suite.jsonl`, checking everything but the pixels.

    Args:
        path: JSON lines, one `Line` each; paths in it are relative to its folder.
        name: For the report; None for that of the file, or of its folder.

    Raises:
        ExportError: The file cannot be read, or a line is not valid; names file and line.
    """
    try:
        raw = path.read_bytes()
        lines = raw.decode("utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise ExportError(
            f"{path}: the suite cannot be read ({error}); give a JSON-lines file"
        ) from error
    name = name or (path.parent.resolve().name if path.stem == "suite" else path.stem)
    numbered = ((n, line) for n, line in enumerate(lines, start=1) if line.strip())
    found = unique(
        (_sample(line, name, path.parent, f"{path}, line {n}"), f"{path}, line {n}")
        for n, line in numbered
    )
    if not found:
        raise ExportError(f"{path}: the suite is empty; give one JSON record a line")
    digest = _digest(raw, found, path.parent)
    return Suite(name, digest, found, _opener(path.parent), origin="file")


def _sample(line: str, suite: str, folder: Path, where: str) -> Sample:
    parsed = _line(line, where)
    _require_pictures(parsed, folder, where)
    return Sample(**parsed.model_dump(), suite=suite)


def _line(line: str, where: str) -> Line:
    try:
        return Line.model_validate(json.loads(line))
    except ValidationError as error:
        first = error.errors()[0]
        key = ".".join(map(str, first["loc"])) or "the record"
        message = first["msg"].removeprefix("Value error, ")
        raise ExportError(f"{where}: {key}: {message}; correct the record") from error
    except (ValueError, RecursionError) as error:
        reason = getattr(error, "msg", error)
        raise ExportError(f"{where}: not JSON ({reason}); write one JSON record a line") from error


def _require_new(sample: Sample, seen: Collection[str], where: str) -> None:
    if sample.id in seen:
        raise ExportError(f"{where}: the id {sample.id!r} was used before; make ids unique")


def _require_pictures(sample: Line, folder: Path, where: str) -> None:
    root = folder.resolve()
    for path in sample.pictures:
        target = (root / path).resolve()
        if not target.is_relative_to(root):
            raise ExportError(
                f"{where}: {path} leads out of the suite's folder; copy the picture into it"
            )
        if not _is_file(target):
            raise ExportError(
                f"{where}: the picture {path} does not exist; add it or correct the path"
            )


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long, a folder that may not be read
        return False


def _digest(raw: bytes, samples: tuple[Sample, ...], folder: Path) -> str:
    whole = hashlib.sha256(raw)
    for path in (path for sample in samples for path in sample.pictures):
        whole.update(hashlib.sha256((folder / path).read_bytes()).digest())
    return whole.hexdigest()


def _opener(folder: Path) -> Callable[[str], Image]:
    def picture(path: str) -> Image:
        from PIL import Image

        try:
            with Image.open(folder / path) as opened:
                return opened.convert("RGB")
        except OSError as error:
            raise ExportError(
                f"{folder / path} is not a readable picture ({error}); replace it"
            ) from error

    return picture


def _no_picture(path: str) -> Image:
    raise AssertionError(f"{path}: a joined suite asks its parts for pictures")
