"""What a steered directory keeps for later: the prompts and the suites that it was made with.

They lie in `inputs/`, which stays at home: it is neither sealed nor published. Training does not
carry it on, but it does carry `config.steering`, which names the prompts by their digests.
"""

import re
import shutil
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from pydantic import ValidationError, field_validator

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.seal import INPUTS
from mars_export.common.atomic import write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.paths import exists, named
from mars_export.common.record import Record, VersionedRecord, first_problem
from mars_export.evaluation.suite import SUITE_NAME
from mars_export.evaluation.suites.catalog import DEFAULT, open_suites
from mars_export.evaluation.suites.own import TABLES
from mars_export.evaluation.suites.record import known_suites
from mars_export.families.directory import read_json
from mars_export.inputs.prompts import PromptSet, PromptSets, from_suite, packaged, split_again

__all__ = [
    "CalibratedOn",
    "PromptFile",
    "calibrated_on",
    "find_sets",
    "find_tuning",
    "keep_prompts",
    "keep_suites",
    "keep_tuning",
    "kept_suites",
    "kept_tuning",
]

_PROMPTS: Final = f"{INPUTS}/prompts.json"
_SUITES: Final = f"{INPUTS}/suites.json"
_TUNING: Final = f"{INPUTS}/tuning.json"
_FOLDERS: Final = {_SUITES: "suites", _TUNING: "tuning"}
"""Where copies of the user's own suites lie, in `inputs`."""
_PLAIN: Final = re.compile(r"[\w-][\w .-]*")
"""Names of suites that can be names of folders."""


_Record = TypeVar("_Record", bound=VersionedRecord)


class PromptFile(Record):
    """What names one set of prompts."""

    name: str
    sha256: str


class CalibratedOn(Record):
    """`config.steering.calibrated_on`: what a calibration was made from, which training keeps."""

    harmful: PromptFile
    harmless: PromptFile
    seed: int
    neutral: tuple[str, ...]
    """Kinds of the neutral stimuli."""
    tuning: PromptFile | None = None
    """The suite that it was tuned on; None for none."""

    @field_validator("tuning", mode="before")
    @classmethod
    def _without_counts(cls, raw: Any) -> Any:
        """config.json also says how many requests there were."""
        return {k: v for k, v in raw.items() if k != "requests"} if isinstance(raw, dict) else raw

    def describes(self, sets: PromptSets) -> bool:
        """Whether these are the prompts."""
        pairs = ((self.harmful, sets.harmful), (self.harmless, sets.harmless))
        return all(mine.sha256 == theirs.sha256 for mine, theirs in pairs)


class KeptPrompts(VersionedRecord):
    """`inputs/prompts.json`."""

    seed: int
    """Of the split."""
    harmful: PromptSet
    harmless: PromptSet


class KeptSuites(VersionedRecord):
    """`inputs/suites.json` and `inputs/tuning.json`."""

    words: tuple[str, ...]
    """As for `--suite`; `PATH` and `NAME=PATH` in a folder of `inputs` are relative to that."""


def calibrated_on(directory: Path) -> CalibratedOn | None:
    """What a steered checkpoint was calibrated on; None if nothing in it says so.

    Args:
        directory: Steered, and perhaps trained and saved since.

    Raises:
        ExportError: if its manifest cannot be read.
    """
    if (directory / "config.json").is_file():
        config = read_json(directory / "config.json")
        steering = config.get("steering") if isinstance(config, dict) else None
        stated = steering.get("calibrated_on") if isinstance(steering, dict) else None
        if stated is not None:
            try:
                return CalibratedOn.model_validate(stated)
            except ValidationError as error:
                where = f"{directory / 'config.json'}: steering.calibrated_on"
                raise ExportError(f"{where}: {first_problem(error)}") from error
    if not (directory / MANIFEST_NAME).is_file():
        return None
    source = Manifest.read(directory).calibration.source
    files = {
        label: PromptFile(name=stated.name, sha256=stated.sha256)
        for label, stated in source.prompts.items()
    }
    if set(files) != {"harmful", "harmless"}:
        return None
    tuning = source.tuning
    tuned = PromptFile(name=tuning.name, sha256=tuning.sha256) if tuning else None
    return CalibratedOn(**files, seed=source.seed, neutral=source.kinds, tuning=tuned)


def find_sets(known: CalibratedOn, folders: Iterable[Path], seed: int) -> PromptSets | None:
    """The prompts of a calibration: kept in a folder, of a suite there, or the packaged ones.

    Args:
        known: What they must be.
        folders: Where to look.
        seed: Of their split.

    Returns:
        None where they are not at hand.
    """
    return next(filter(known.describes, _candidates(folders, seed)), None)


def find_tuning(known: PromptFile, folders: Iterable[Path]) -> str | None:
    """The suite of a calibration that was tuned: kept in a folder, or one that ships.

    Returns:
        As for `open_suites`; None where it is not at hand, or was changed.
    """
    kept = [word for folder in folders if (word := kept_tuning(folder))]
    if known.name in known_suites():
        kept.append(known.name)
    return next((word for word in kept if open_suites([word]).sha256 == known.sha256), None)


def keep_prompts(directory: Path, sets: PromptSets, seed: int) -> None:
    """Keep the prompts of a calibration in its steered directory."""
    kept = KeptPrompts(seed=seed, harmful=sets.harmful, harmless=sets.harmless)
    _write(directory / _PROMPTS, kept)


def keep_suites(directory: Path, words: Sequence[str]) -> None:
    """Keep the suites of an evaluation in a steered directory; own files are copied.

    Args:
        directory: Steered.
        words: As for `open_suites`.
    """
    _keep_all(directory, _SUITES, tuple(dict.fromkeys(words or (DEFAULT,))))


def keep_tuning(directory: Path, word: str | None) -> None:
    """Keep the suite that a calibration was tuned on in its steered directory, as `keep_suites`."""
    if word is not None:
        _keep_all(directory, _TUNING, (word,))


def kept_tuning(directory: Path) -> str | None:
    """The suite that a steered directory was tuned on, for `open_suites`; None if none is kept.

    Raises:
        ExportError: if the record of it cannot be read.
    """
    path = directory / _TUNING
    if not path.is_file():
        return None
    return _found(path.parent, _read(KeptSuites, path).words[0])


def kept_suites(directory: Path) -> tuple[str, ...]:
    """The suites that a steered directory was made with, for `open_suites`; none if none is kept.

    Raises:
        ExportError: if the record of them cannot be read.
    """
    path = directory / _SUITES
    if path.is_file():
        return tuple(_found(path.parent, word) for word in _read(KeptSuites, path).words)
    own = directory / SUITE_NAME
    return (str(own),) if own.is_file() else ()


def _candidates(folders: Iterable[Path], seed: int) -> Iterator[PromptSets]:
    for folder in folders:
        if (folder / _PROMPTS).is_file():
            kept = _read(KeptPrompts, folder / _PROMPTS)
            sets = PromptSets(kept.harmful, kept.harmless)
            yield sets if kept.seed == seed else split_again(sets, seed)
        if (folder / SUITE_NAME).is_file():
            try:
                yield from_suite(folder / SUITE_NAME, seed)
            except (ExportError, OSError):  # a suite without prompts of its own
                continue
    yield packaged(seed)


def _keep_all(directory: Path, record: str, words: Sequence[str]) -> None:
    inputs = directory / INPUTS
    shutil.rmtree(inputs / _FOLDERS[record], ignore_errors=True)
    kept = tuple(_keep(inputs, word, _FOLDERS[record]) for word in words)
    _write(directory / record, KeptSuites(words=kept))


def _keep(inputs: Path, word: str, below: str) -> str:
    """Copy a suite of the user's; the word that opens the copy."""
    name, _, place = word.rpartition("=")
    path = named(place)
    if word.partition("@")[0] in {DEFAULT, *known_suites()} or not exists(path):
        return word
    if name in known_suites():  # a benchmark, which may be large and can be had again
        return f"{name}={path.resolve()}"
    suite = open_suites([word])
    plain = bool(_PLAIN.fullmatch(suite.name)) and suite.name not in known_suites()
    folder = f"{below}/{suite.name}" if plain else f"{below}/{suite.sha256[:8]}"
    home = path if path.is_dir() else path.parent
    media = {file for sample in suite.samples for file in sample.files}
    for file in (*([path.name] if path.is_file() else TABLES), *sorted(media)):
        if not (home / file).is_file():  # a table of another name; a picture inside a table
            continue
        target = inputs / folder / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(home / file, target)
    copy = f"{folder}/{path.name}" if path.is_file() else folder
    return f"{suite.name}={copy}" if path.is_file() or not plain else copy


def _found(inputs: Path, word: str) -> str:
    """A word whose path is relative to `inputs` as one that can be opened from here."""
    name, equals, path = word.rpartition("=")
    own = path.partition("/")[0] in _FOLDERS.values() and "/" in path
    return f"{name}{equals}{inputs / path}" if own else word


def _write(path: Path, record: VersionedRecord) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(path, record.model_dump_json(indent=2) + "\n")


def _read(record: type[_Record], path: Path) -> _Record:
    try:
        return record.model_validate_json(path.read_bytes())
    except (OSError, ValidationError) as error:
        what = first_problem(error) if isinstance(error, ValidationError) else str(error)
        raise ExportError(f"{path} cannot be read: {what}; delete it") from error
