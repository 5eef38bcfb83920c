"""Suites: the requests that are run, read from a JSON-lines file. Free of torch."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import is_dir, is_file, resolved
from mars_export.common.problems import Problems, near_file
from mars_export.common.vocabulary import Modality
from mars_export.common.words import normalized
from mars_export.inputs.media import CLIPS, PICTURES, frame_files, open_picture, read_frames
from mars_export.inputs.requests import Media, Request, modality_of
from mars_export.inputs.samples import MediaFiles, Sample, inside, read_samples
from mars_export.inputs.sounds import SOUNDS, Sound, open_sound

if TYPE_CHECKING:
    from PIL.Image import Image

__all__ = [
    "HARMFUL_ONLY",
    "SUITE_NAME",
    "MediaFiles",
    "Sample",
    "Suite",
    "merged",
    "read_suite",
    "unique",
]

SUITE_NAME: Final = "suite.jsonl"
"""Name of a suite's file in its folder."""
HARMFUL_ONLY: Final = (
    "holds harmful requests only; a model that refuses everything would look perfect, so add "
    "harmless ones"
)
"""Said of a suite that carries no model card."""
_OF_A_FOLDER: Final = ("suite", "metadata")
"""Names of files, without ending, that are called after their folder."""


@dataclass(frozen=True)
class Suite:
    """Requests with their labels, and what opens their media.

    Attributes:
        name: For people.
        sha256: Digest of the suite's file, followed by the digests of its media in order.
        samples: Every line, both splits, in file order; ids are unique.
        picture: Opens a path of a sample as an RGB picture.
        license: Of the requests; empty when it is not known.
        origin: `packaged`, `file`, `hub:REPO@COMMIT`, `newest:REPO@COMMIT` where no commit was
            fixed beforehand, or `known:NAME` for a benchmark that ships and `known:NAME=FILE` for
            the user's copy of one.
        parts: The suites that this one joins; empty for one that is read from a file.
        places: Where a sample stands, by its id, for example `mine.jsonl, line 3`.
        drawn: Whether the pictures are drawn by code, all in one size.
        clip: Opens a path of a sample as the frames of a video file.
        sound: Opens a path of a sample as a sound.
    """

    name: str
    sha256: str
    samples: tuple[Sample, ...]
    picture: Callable[[str], Image] = field(repr=False)
    license: str = ""
    origin: str = "packaged"
    parts: tuple[Suite, ...] = ()
    places: Mapping[str, str] = field(default_factory=dict, repr=False, compare=False)
    drawn: bool = False
    clip: Callable[[str], tuple[Image, ...]] = field(default=lambda _: (), repr=False)
    sound: Callable[[str], Sound] | None = field(default=None, repr=False)

    def evaluation_samples(self, modalities: Sequence[Modality]) -> list[Sample]:
        """The samples to evaluate a model on that takes these modalities, in order.

        Args:
            modalities: In the order of the model's steering tensors, which decides what a request
                with several media counts as.
        """
        return [
            s.model_copy(update={"modality": modality_of(s.types, modalities)})
            for s in self.of(modalities).samples
            if s.split == "evaluation"
        ]

    def of(self, modalities: Collection[Modality]) -> Suite:
        """The suite without requests that show something else."""
        kept = tuple(s for s in self.samples if {s.modality, *s.types} <= set(modalities))
        return replace(self, samples=kept)

    def required_samples(self, modalities: Sequence[Modality]) -> list[Sample]:
        """The same; there must be some, of each suite that this one joins.

        Raises:
            ExportError: A suite has nothing to run on such a model.
        """
        for suite in self.parts or (self,):
            if not suite.evaluation_samples(modalities):
                instead = "leave it out" if self.parts else "give another --suite"
                raise ExportError(
                    f"the suite {suite.name} has no request of the split `evaluation` for "
                    f"{', '.join(modalities)}; {instead}"
                )
        return self.evaluation_samples(modalities)

    def request(self, sample: Sample) -> Request:
        """The sample with its media opened.

        Raises:
            ExportError: A medium cannot be read.
        """
        if self.parts:
            return self._owners[sample.id].request(sample)
        return Request(sample.prompt, tuple(map(self._open, sample.media)))

    def _open(self, medium: MediaFiles) -> Media:
        if medium.path is None:
            return Media(medium.type, tuple(map(self.picture, medium.files)))
        if medium.type == "audio":
            assert self.sound is not None, f"{self.name} has no sounds"
            return Media(medium.type, self.sound(medium.path))
        opened = self.picture if medium.type == "image" else self.clip
        return Media(medium.type, opened(medium.path))

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
    problems = Problems()
    samples = unique(
        ((s, f"suite {suite.name}") for suite in suites for s in suite.samples), problems
    )
    problems.refuse()
    return Suite(" + ".join(names), whole, samples, _no_picture, parts=tuple(suites))


def unique(samples: Iterable[tuple[Sample, str]], problems: Problems) -> tuple[Sample, ...]:
    """The samples; ids that are used twice and requests with both labels are noted as problems.

    Args:
        samples: Each with where it stands.
        problems: Of the file.
    """
    by_id: dict[str, Sample] = {}
    by_request: dict[tuple[str, ...], Sample] = {}
    for sample, place in samples:
        first = by_request.setdefault(_request(sample), sample)
        if sample.id in by_id:
            problems.add(place, f"the id {sample.id!r} was used before", "make ids unique")
        elif first.harmful != sample.harmful:
            what = f"{sample.id!r} asks what {first.id!r} asks and has the other label"
            problems.add(place, what, "correct one of the two or leave it out")
        else:
            by_id[sample.id] = sample
    return tuple(by_id.values())


def _request(sample: Sample) -> tuple[str, ...]:
    """What is the same of two samples that ask the same."""
    words = normalized(sample.prompt) or sample.prompt
    files = (sample.suite, *sample.files) if sample.files else ()
    return (sample.split, words, normalized(sample.intent or ""), *files)


def read_suite(path: Path, name: str | None = None) -> Suite:
    """Read the user's own requests, checking everything but what the media show.

    Args:
        path: A table as `read_samples` takes it; paths in it are relative to its folder.
        name: For the report; None for that of the file, or of its folder.

    Raises:
        ExportError: The file cannot be read, there is no request, records are not valid, or
            media are missing, of another kind or outside the folder; names file and lines.
    """
    problems = Problems(str(path))
    name = name or (path.resolve().parent.name if path.stem in _OF_A_FOLDER else path.stem)
    read = read_samples(path, name, problems)
    for sample, place in read:
        _check_files(sample, path, place, problems)
    read = [
        (whole, place)
        for sample, place in read
        for whole in problems.attempt(place, partial(_with_frames, sample, path.parent))
    ]
    samples = unique(read, problems)
    problems.refuse()
    if not samples:
        raise ExportError(f"{path}: the suite is empty; give one record for each request")
    return Suite(
        name,
        _digest(path, samples),
        samples,
        lambda file: open_picture(_data(path, file), str(path.parent / file)),
        origin="file",
        clip=lambda file: read_frames(path.parent / file, str(path.parent / file)),
        sound=lambda file: open_sound(_data(path, file), str(path.parent / file)),
        places={sample.id: f"{path}, {place}" for sample, place in read},
    )


def _digest(table: Path, samples: Iterable[Sample]) -> str:
    whole = hashlib.sha256(table.read_bytes())
    for path in (path for sample in samples for path in sample.files):
        if inside(table, path) is None:
            whole.update(hashlib.sha256((table.parent / path).read_bytes()).digest())
    return whole.hexdigest()


def _data(table: Path, path: str) -> Path | bytes:
    """The file of a medium, or what lies in the table itself."""
    return inside(table, path) or table.parent / path


def _with_frames(sample: Sample, folder: Path) -> Sample:
    """The sample with the frames of its clips that are folders, which must hold some."""

    def listed(medium: MediaFiles) -> MediaFiles:
        if medium.type != "video" or medium.path is None or not is_dir(folder / medium.path):
            return medium
        frames = frame_files(folder / medium.path, str(folder / medium.path))
        paths = [frame.relative_to(folder).as_posix() for frame in frames]
        return MediaFiles(type=medium.type, paths=paths)

    return sample.model_copy(update={"media": list(map(listed, sample.media))})


def _check_files(sample: Sample, table: Path, place: str, problems: Problems) -> None:
    """Note files of a sample that do not exist in the table's folder, or are of another kind."""
    root = table.parent.resolve()
    for medium in sample.media:
        for path in (path for path in medium.files if inside(table, path) is None):
            target, kind = resolved(root / path), _kind(medium)
            other, key = _other_kind(path, kind)
            if not target.is_relative_to(root):
                problems.add(place, f"{path} leads out of the suite's folder", "copy it into that")
            elif is_dir(target) and kind != "clip":
                hint = "give one as `video`" if kind == "picture" else "name a file"
                problems.add(place, f"the {kind} {path} is a folder", hint)
            elif not (is_file(target) or is_dir(target)):
                hint = near_file(target) or "; add it or correct the path"
                problems.add(place, f"the {kind} {path} does not exist", hint.removeprefix("; "))
            elif other and not is_dir(target):
                problems.add(place, f"the {kind} {path} is {other}", f"give it as `{key}`")


def _kind(medium: MediaFiles) -> str:
    """What each file of a medium must be."""
    if medium.type == "audio":
        return "sound"
    return "clip" if medium.type == "video" and medium.path is not None else "picture"


def _other_kind(path: str, kind: str) -> tuple[str, str]:
    """What a file is by its ending, if it cannot be of this kind, and the key for it."""
    name = path.lower()
    if name.endswith(CLIPS):
        return ("", "") if kind == "clip" else ("a video file", "video")
    if name.endswith(SOUNDS):
        return ("", "") if kind == "sound" else ("a sound", "audio")
    return ("a picture", "image") if kind == "sound" and name.endswith(PICTURES) else ("", "")


def _no_picture(path: str) -> Image:
    raise AssertionError(f"{path}: a joined suite asks its parts for pictures")
