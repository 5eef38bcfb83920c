"""Requests with their labels, as a user's file states them: for calibration and evaluation alike.

Free of torch.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Container, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from mars_export.common.paths import require_inside
from mars_export.common.problems import Problems, near
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.common.words import normalized
from mars_export.inputs.media import CLIPS
from mars_export.inputs.readers import PROMPT_KEYS, Prompt, has_words, prompt_of, text_problem
from mars_export.inputs.requests import mixes, modality_of
from mars_export.inputs.sounds import OTHER_SOUNDS, SOUNDS
from mars_export.inputs.tables import Row, embedded, embedding_columns, read_rows

__all__ = ["MediaFiles", "Sample", "inside", "read_samples", "read_suite_texts"]

_DIGITS: Final = 16
"""Of a digest that names a cluster."""
_LABELS: Final = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
_FLAGS: Final = ("harmful", "advice")
_LIKELY: Final = 0.85
"""How near a column of a foreign table is to a known one where it must be meant."""
_WAYS: Final = {"image": "`path`", "video": "`path` or `paths`", "audio": "`path`"}
"""How a medium names its files."""
_EMBEDDED: Final = ("image", "audio")
"""Columns of a Parquet file that may hold the media themselves, as those of `datasets` do."""


class MediaFiles(BaseModel):
    """Where one medium of a request is."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    type: Modality
    path: str | None = None
    """Relative to the suite; of an image, a sound, or a clip: a video or a folder of frames."""
    paths: list[str] | None = Field(default=None, min_length=1)
    """Of the frames of a clip, in order."""

    @property
    def files(self) -> list[str]:
        """All paths, in order."""
        return [self.path] if self.path is not None else list(self.paths or ())

    @model_validator(mode="after")
    def _has_what_its_type_needs(self) -> MediaFiles:
        ways = _WAYS.get(self.type)
        if ways is None:
            raise ValueError(f"a medium cannot be {self.type}")
        given = [f"`{name}`" for name in ("path", "paths") if getattr(self, name) is not None]
        if len(given) != 1 or given[0] not in ways.split():
            raise ValueError(f"a medium of type {self.type} has {ways} and nothing else")
        return self


class Sample(BaseModel):
    """One request and its label: a line of a suite's file, or a variant of one."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    id: str = Field(min_length=1)
    modality: Modality
    harmful: bool
    split: Literal["calibration", "evaluation"]
    prompt: str
    """Empty only beside a sound that says it all."""
    media: list[MediaFiles] = []
    """What is shown before the prompt. The keys `image` and `audio`, a path, and `video`, a path or
    a list of paths of frames, say the same of a single medium."""
    category: str | None = None
    """Kind of request within the suite; numbers are given for each."""
    advice: bool = False
    """Whether it asks for legal, financial or medical advice. Of a harmful request neither refusing
    more nor less is then better, so it is counted apart; a harmless one is like any other."""
    intent: str | None = Field(default=None, min_length=1)
    """What the request is after where its media say it, in words, for judges that can neither see
    nor hear."""
    cluster: str = ""
    """Topic or source prompt: requests of one cluster stand and fall together, in whatever suite.
    Empty means its own words, so that one request shown in three ways is one cluster."""
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

    @property
    def heard(self) -> bool:
        """Whether it has a sound."""
        return "audio" in self.types

    @property
    def words(self) -> str:
        """What it asks for: what its media say it is after, in words, or else its prompt."""
        return self.intent or self.prompt

    @property
    def kin(self) -> str:
        """Its cluster; a digest of its own words, as `normalized`, if none is named.

        Media count as words where nothing says what they are after: the same question about two
        pictures is two requests. Digests keep the words out of the files of results.
        """
        if name := normalized(self.cluster):
            return name
        media = [] if self.intent else self.files
        whole = json.dumps([normalized(self.words) or self.words, *media])
        return hashlib.sha256(whole.encode()).hexdigest()[:_DIGITS]

    @model_validator(mode="before")
    @classmethod
    def _single_media_have_keys_of_their_own(cls, raw: Any) -> Any:
        if not isinstance(raw, dict):
            return raw
        video = raw.get("video")
        way = "path" if isinstance(video, str) else "paths"
        named = {
            "image": ("path", raw.get("image")),
            "video": (way, video),
            "audio": ("path", raw.get("audio")),
        }
        media = [{"type": t, key: value} for t, (key, value) in named.items() if value is not None]
        if media and raw.get("media"):
            raise ValueError("give `media`, or `image`, `video` or `audio`, not both")
        rest = {key: value for key, value in raw.items() if key not in named}
        return {**rest, "media": media} if media else rest

    @model_validator(mode="after")
    def _has_the_modality_of_its_media(self) -> Sample:
        modality = modality_of(self.types)
        if not self.variant and modality != self.modality:
            raise ValueError(f"`modality` is {self.modality}, but its media make it {modality}")
        if not (self.prompt or self.heard):
            raise ValueError("`prompt` is missing")
        if mixes(self.types):
            raise ValueError("audio beside a picture or clip is never steered; give one of them")
        for path in self.files:
            require_inside(path)
        return self


_PICTURE: Final = "file_name"
_PICTURES: Final = "file_names"
_SINGLE: Final = ("image", "video", "audio")
_SHOWN: Final = (*_SINGLE, "media", _PICTURE, _PICTURES)
_KEYS: Final = (frozenset(Sample.model_fields) | {*_SHOWN}) - {"suite", "variant", "group"}
"""What a record may say."""


def read_samples(path: Path, suite: str, problems: Problems) -> list[tuple[Sample, str]]:
    """The records of a table that are valid, with their places; the others are noted.

    `harmful` and a prompt are needed, the latter not beside a sound. Without them, `split` is
    `evaluation`, `modality` that of the media, and `id` the file or the line behind the suite's
    name. `file_name` is a picture, a sound or a video file and `file_names` are several, as in the
    folders of `datasets`. Keys that are unknown are refused in JSON lines; in other tables, and in
    `metadata.jsonl`, only those that are near a known one. A picture or sound that lies in a column
    of a Parquet file has the path `FILE/ROW/COLUMN`; see `inside`.

    Args:
        path: A table, as for `read_rows`.
        suite: Its name.
        problems: Of this file.

    Raises:
        ExportError: The file cannot be read, or has another ending.
    """
    strict = path.suffix.lower() in (".jsonl", ".ndjson", "") and path.stem != "metadata"
    samples: list[tuple[Sample, str]] = []
    ids: set[str] = set()
    rows = read_rows(path, problems)
    columns = [c for c in embedding_columns(path) if c.strip().lower() in _EMBEDDED]
    for row in rows:
        own = {c: f"{path.name}/{row.number}/{c}" for c in columns if embedded(row, c) is not None}
        wrong, record = _record({**row.values, **own}, strict=strict)
        if "id" not in record:
            name = f"{suite}/{row.values.get(_PICTURE) or row.number}"
            record["id"] = f"{name}#{row.number}" if name in ids else name
        try:
            sample = Sample.model_validate({**record, "suite": suite})
            samples += [] if wrong else [(sample, row.place)]
            ids.add(sample.id)
        except ValidationError as error:
            wrong += _told(error, {text.split()[0] for text in wrong})
        for what in dict.fromkeys(wrong):
            problems.add(row.place, what, "correct the record")
    return samples


def inside(table: Path, path: str) -> bytes | None:
    """The picture or sound inside a Parquet file that a path of a sample of it stands for.

    None for the path of a file.
    """
    if not path.startswith(f"{table.name}/"):
        return None
    number, _, column = path.removeprefix(f"{table.name}/").partition("/")
    if not (number.isascii() and number.isdecimal() and column in embedding_columns(table)):
        return None
    return embedded(Row(table, int(number), {}), column)


def read_suite_texts(path: Path, split: str) -> dict[bool, list[Prompt]]:
    """Prompts of the text records of one split of a suite's file, keyed by `harmful`.

    Raises:
        ExportError: The file cannot be read or records are not valid.
    """
    problems = Problems(str(path))
    texts: dict[bool, list[Prompt]] = {True: [], False: []}
    for sample, place in read_samples(path, "", problems):
        if (sample.modality, sample.split) == ("text", split):
            texts[sample.harmful].append(Prompt(sample.prompt.strip(), f"{path}, {place}"))
    problems.refuse()
    return texts


def _record(values: Mapping[str, Any], *, strict: bool) -> tuple[list[str], dict[str, Any]]:
    """What is wrong with a record, and what it says under the names of `Sample`."""
    named = {str(key).strip().lower(): value for key, value in values.items()}
    wrong = list(_odd_keys(named, strict=strict))
    record = {key: named[key] for key in _KEYS if named.get(key) not in (None, "")}
    record = {"prompt": prompt_of(values), "split": "evaluation", **record}
    for key in ("id", "category", "cluster"):
        if type(record.get(key)) in (int, float):
            record[key] = str(record[key])
    for key in _FLAGS:
        label = _LABELS.get(str(record.get(key, "no")).strip().lower())
        if label is None:
            wrong.append(f"{key} is {record[key]!r:.60}; write true or false")
        elif key == "harmful" and key not in record:
            wrong.append("harmful is missing; write true if the model should refuse it, or false")
        record[key] = bool(label)
    record = _with_media(record)
    spoken = record["modality"] == "audio"
    if record["prompt"] in (None, "") and spoken:
        record["prompt"] = ""
    elif record["prompt"] in (None, ""):
        columns = "" if strict else f"; the columns are {', '.join(named):.100}"
        wrong.append(f"prompt is missing{columns}")
    texts = {key: value for key, value in record.items() if isinstance(value, str) and value}
    wrong += (f"{key} has {told}" for key, text in texts.items() if (told := text_problem(text)))
    if "prompt" in texts and not has_words(texts["prompt"]):
        wrong.append("prompt has no words")
    return wrong, record


def _odd_keys(named: Mapping[str, Any], *, strict: bool) -> Iterator[str]:
    known = {*_KEYS, *PROMPT_KEYS}
    for key in named:
        if key not in known:
            hint = near(key, known, 0.6 if strict else _LIKELY)
            if strict or hint:
                yield f"there is no key {key:.60}{hint}"


def _with_media(record: dict[str, Any]) -> dict[str, Any]:
    """The record with its media under the names of `Sample`, and a modality."""
    media = list(record.get("media") or []) if isinstance(record.get("media"), list) else []
    if (picture := record.pop(_PICTURE, None)) is not None:
        media.append({"type": _shown_by(picture), "path": picture})
    if (pictures := record.pop(_PICTURES, None)) is not None:
        several = pictures if isinstance(pictures, list) else [pictures]
        media += ({"type": _shown_by(path), "path": path} for path in several)
    if media:
        record["media"] = media
    types = [medium.get("type") for medium in media if isinstance(medium, dict)]
    types += [key for key in _SINGLE if key in record]
    modality = modality_of(kind for kind in types if kind in MODALITIES)
    return {"modality": modality, **record}


def _shown_by(path: object) -> Modality:
    """What a file of `file_name` shows, by its ending."""
    name = path.lower() if isinstance(path, str) else ""
    if name.endswith(CLIPS):
        return "video"
    return "audio" if name.endswith((*SOUNDS, *OTHER_SOUNDS)) else "image"


def _told(error: ValidationError, known: Container[str]) -> list[str]:
    """What is wrong, each on one line and under the name of its key, unless that is known."""
    told = []
    for problem in error.errors():
        where = ".".join(map(str, problem["loc"]))
        what = " ".join(problem["msg"].removeprefix("Value error, ").split())
        key = problem["loc"][0] if problem["loc"] else what.partition(" ")[0].strip("`")
        if key in known:
            continue
        told.append(f"{where}: {what}" if where else what)
    return told
