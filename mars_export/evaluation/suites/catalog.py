"""What `--suite` means: a known benchmark, a copy of one, or the user's own requests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import exists, named
from mars_export.common.problems import near, near_file
from mars_export.evaluation.suite import Suite, merged
from mars_export.evaluation.suites.adapter import adapt
from mars_export.evaluation.suites.builtin import packaged_suite
from mars_export.evaluation.suites.own import read_own
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
    if exists(named(word)):
        return read_own(named(word))
    name, equals, path = word.partition("=")
    copy = named(path if equals else word)
    if not equals:
        hint = near(name, _names()) or near_file(copy) or ";"
        raise ExportError(
            f"--suite {word}: neither a known suite nor a file{hint} see mars-export suites"
        )
    if name in known_suites():
        record = known_suites()[name]
        return adapt(record, from_disk(record, copy))
    if not exists(copy):
        hint = near(name, _names()) or near_file(copy) or "; correct the path"
        raise ExportError(f"--suite {word}: there is no such file or folder{hint}")
    return read_own(copy, name)


def _names() -> list[str]:
    return [*known_suites(), DEFAULT]


def _source(record: SuiteRecord, revision: str | None) -> Source:
    if record.by_hand:
        raise ExportError(
            f"the suite {record.name} is not fetched: {record.by_hand}; give --suite "
            f"{record.name}=PATH, a table or a folder with one: {record.columns}"
        )
    if not record.offline:
        return from_hub(record, revision)
    if revision:
        raise ExportError(f"{record.name} ships with the package and has no revision {revision}")
    return from_package(record)
