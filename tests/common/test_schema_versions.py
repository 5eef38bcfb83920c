"""Every file with a schema version: one of another version is refused with one clear line."""

import importlib
import json
import pkgutil

import pytest
from pydantic import ValidationError

import mars_export
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.common.record import VersionedRecord, first_problem
from mars_export.methods.base import RECORD_NAME, Artefact


def records():
    """Every subclass in the package, found by importing all of it that the tests have."""
    for module in pkgutil.walk_packages(mars_export.__path__, "mars_export."):
        if not any(part in module.name for part in (".vllm", ".inspect_ai", "__main__")):
            importlib.import_module(module.name)
    pending, found = [VersionedRecord], set()
    while pending:
        subclasses = pending.pop().__subclasses__()
        found.update(c for c in subclasses if c.__module__.startswith("mars_export."))
        pending += subclasses
    return sorted(found, key=lambda record: record.__name__)


RECORDS = records()


def test_the_files_of_the_package_are_among_them():
    names = {record.__name__ for record in RECORDS}
    assert {"ArtefactRecord", "Drift", "Manifest", "Verification"} <= names


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
@pytest.mark.parametrize("version", [0, 99, "2", None])
def test_another_version_is_refused(record, version):
    current = record.model_fields["schema_version"].default
    content = {} if version is None else {"schema_version": version}
    with pytest.raises(ValidationError) as caught:
        record.model_validate_json(json.dumps(content))
    problem = first_problem(caught.value)
    assert f"is not {current}, the one that this release" in problem
    assert "\n" not in problem


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: record.__name__)
def test_the_current_version_is_read_for_what_it_holds(record):
    current = record.model_fields["schema_version"].default
    with pytest.raises(ValidationError) as caught:
        record.model_validate_json(json.dumps({"schema_version": current, "no such key": 1}))
    assert "schema version" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "read", "version"),
    [(MANIFEST_NAME, Manifest.read, 2), (RECORD_NAME, Artefact.load, 4)],
)
def test_the_line_that_a_user_reads(tmp_path, name, read, version):
    (tmp_path / name).write_text('{"schema_version": 99}')
    with pytest.raises(ExportError, match=f"schema version 99 is not {version}") as caught:
        read(tmp_path)
    assert "\n" not in str(caught.value)
