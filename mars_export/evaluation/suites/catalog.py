"""What `--suite` means: a known benchmark, a copy of one, or the user's own requests."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.evaluation.suite import Suite, merged, read_suite
from mars_export.evaluation.suites.adapter import adapt
from mars_export.evaluation.suites.builtin import packaged_suite
from mars_export.evaluation.suites.own import read_folder
from mars_export.evaluation.suites.record import SuiteRecord, known_suites
from mars_export.evaluation.suites.sources import Source, from_disk, from_hub, from_package

__all__ = ["DEFAULT", "open_suites"]

DEFAULT: Final = "typographic"
"""The suite that is run when none is named: requests written for this package."""


def open_suites(words: Sequence[str]) -> Suite:
    """The suites that the user asked for, as one.

    Args:
        words: Each `NAME`, `NAME@REVISION`, `NAME=PATH` or `PATH`; none means the default one.

    Raises:
        ExportError: A name is not known, a file cannot be read or fetched, a record is malformed,
            or two suites share an id.
    """
    return merged([_open(word) for word in dict.fromkeys(words or (DEFAULT,))])


def _open(word: str) -> Suite:
    name, _, revision = word.partition("@")
    if name == DEFAULT:
        return packaged_suite()
    if name in known_suites():  # before files: `--suite ./xstest` is how to name such a file
        record = known_suites()[name]
        return adapt(record, _source(record, revision or None))
    if Path(word).expanduser().exists():
        return _own(Path(word).expanduser(), None)
    name, equals, path = word.partition("=")
    if not equals:
        raise ExportError(_unknown(word))
    known, copy = known_suites().get(name), Path(path).expanduser()
    return adapt(known, from_disk(known, copy)) if known else _own(copy, name)


def _source(record: SuiteRecord, revision: str | None) -> Source:
    if not record.offline:
        return from_hub(record, revision)
    if revision:
        raise ExportError(f"{record.name} ships with the package and has no revision {revision}")
    return from_package(record)


def _own(path: Path, name: str | None) -> Suite:
    return read_folder(path, name) if path.is_dir() else read_suite(path, name)


def _unknown(word: str) -> str:
    near = difflib.get_close_matches(word, [*known_suites(), DEFAULT], 1)
    hint = f"; is it {near[0]}?" if near else ";"
    return f"--suite {word}: neither a known suite nor a file{hint} see mars-export suites"
