"""Whatever a file holds: it is read, or there is one line about it. Nothing else happens.

MARS_FUZZ sets how many contents each file gets.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

import click
import pytest
from hypothesis import HealthCheck, example, given, settings

from mars_export import ExportError, verify
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.cli.main import cli
from mars_export.cli.options import read_settings
from mars_export.evaluation.suite import read_suite
from mars_export.families.weights import read_index, weight_map
from mars_export.inputs.prompts import from_files, from_suite
from mars_export.inputs.readers import read_prompts
from mars_export.inputs.samples import read_suite_texts
from mars_export.methods.base import Artefact
from mars_export.pipeline.preflight import prepare
from mars_export.pipeline.settings import Settings
from support import hostile, tiny
from support.hostile import confined, json_near, near

quick = settings(
    max_examples=int(os.environ.get("MARS_FUZZ", "120")),
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
SAMPLE = {
    "id": "a",
    "modality": "image",
    "harmful": True,
    "split": "evaluation",
    "prompt": "What is this?",
    "image": "a.png",
    "video": None,
}
PROMPTS = {
    ".txt": b"".join(b"How do I do %d?\n" % n for n in range(30)),
    ".json": json.dumps([{"prompt": f"How do I do {n}?"} for n in range(30)]).encode(),
    ".jsonl": b"".join(b'{"goal": "How do I do %d?"}\n' % n for n in range(30)),
    ".csv": b"Behavior,n\n" + b"".join(b'"How do I do %d?",1\n' % n for n in range(30)),
}


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Base, calibration and steered directory; whoever changes a file puts it back."""
    folder = tmp_path_factory.mktemp("made")
    tiny.export("gemma3", folder)
    assert verify(folder / "steered").passed  # imports what is imported late
    return folder


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    return tmp_path_factory.mktemp("place")


def refused(call, *arguments, root):
    """Whether `call` refuses in one line; anything but a result and that is a failure."""
    with confined(root):
        try:
            call(*arguments)
        except (ExportError, click.ClickException) as error:
            said = error.format_message() if isinstance(error, click.ClickException) else str(error)
            assert "\n" not in said.strip()
            said.encode()
            return True
    return False


@pytest.mark.parametrize("suffix", PROMPTS)
def test_prompt_files(suffix, place):
    path, other = place / f"prompts{suffix}", place / "other.txt"
    other.write_text("".join(f"Another {n}\n" for n in range(30)))

    @quick
    @given(near(PROMPTS[suffix]))
    @example(b"prompt,x\n" + b"a" * 200_000 + b",1\n")
    @example(b"a\x00b,prompt\n1,2\n")
    @example(b'["\\ud800"]')
    def check(content):
        path.write_bytes(content)
        refused(read_prompts, path, root=place)
        refused(from_files, path, other, root=place)

    check()
    path.write_bytes(PROMPTS[suffix])
    assert not refused(from_files, path, other, root=place)


@quick
@given(json_near(SAMPLE) | near(hostile.dump(SAMPLE)))
@example(hostile.dump(SAMPLE | {"image": "a\0b"}))
@example(hostile.dump(SAMPLE | {"image": "x" * 5000}))
@example(hostile.dump(SAMPLE | {"image": "x/" * 5000}))
@example(hostile.dump(SAMPLE | {"image": "\ud800"}))
@example(hostile.dump(SAMPLE | {"prompt": "\ud800", "id": "\ud800"}))
def test_suites(place, content):
    path = place / "suite.jsonl"
    (place / "a.png").write_bytes(b"no picture")
    path.write_bytes(hostile.dump(SAMPLE | {"id": "b"}) + b"\n" + content)
    refused(read_suite, path, root=place)
    refused(read_suite_texts, path, "evaluation", root=place)
    refused(from_suite, path, root=place)


TABLES = {
    ".csv": b"prompt,harmful,file_name,id\nWhat?,true,a.png,1\nHow?,0,,2\n",
    ".tsv": b"prompt\tharmful\nWhat?\ttrue\nHow?\t0\n",
    ".json": hostile.dump([SAMPLE, {"prompt": "a", "harmful": False}]),
    ".ndjson": hostile.dump(SAMPLE) + b'\r{"prompt": "a", "harmful": 1, "file_names": ["a.png"]}',
}


@pytest.mark.parametrize("suffix", TABLES)
def test_tables(suffix, place):
    path = place / f"mine{suffix}"
    (place / "a.png").write_bytes(b"no picture")

    @quick
    @given(near(TABLES[suffix]))
    def check(content):
        path.write_bytes(content)
        refused(read_suite, path, root=place)

    check()
    path.write_bytes(TABLES[suffix])
    assert not refused(read_suite, path, root=place)


def test_a_suite_that_is_read_names_pictures_of_its_folder_only(place):
    (place / "suite.jsonl").write_bytes(hostile.dump(SAMPLE))
    (place / "a.png").write_bytes(b"\x80\x04cposix\nsystem\n")
    suite = read_suite(place / "suite.jsonl")
    assert refused(suite.request, suite.samples[0], root=place)
    for path in hostile.PATHS:
        (place / "suite.jsonl").write_bytes(hostile.dump(SAMPLE | {"image": path}))
        assert refused(read_suite, place / "suite.jsonl", root=place), path


def manifest_of(made):
    return json.loads((made / "steered" / MANIFEST_NAME).read_bytes())


def test_manifests(made):
    valid = manifest_of(made)
    path = made / "steered" / MANIFEST_NAME
    before = path.read_bytes()

    @quick
    @given(json_near(valid) | near(before))
    def check(content):
        path.write_bytes(content)
        refused(Manifest.read, path.parent, root=made)
        if content != before:
            found = []
            refused(lambda: found.append(verify(path.parent, offline=True).passed), root=made)
            assert found != [True]

    try:
        check()
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors.index.json", "calibration/calibration.json"]
)
def test_other_files_of_a_steered_directory(made, name):
    path = made / "steered" / name
    before = path.read_bytes()

    @quick
    @given(json_near(json.loads(before)) | near(before))
    def check(content):
        path.write_bytes(content)
        found = []
        assert not refused(lambda: found.append(verify(path.parents[name.count("/")])), root=made)
        assert found[0].passed == (content == before)

    try:
        check()
    finally:
        path.write_bytes(before)


@pytest.mark.parametrize("name", ["calibration.json", "calibration.safetensors"])
def test_calibrations(made, tmp_path, name):
    """Read, and if it can be read, written into a checkpoint."""
    folder = shutil.copytree(made / "calibration", tmp_path / "calibration")
    before = (folder / name).read_bytes()
    structured = json_near(json.loads(before)) if name.endswith(".json") else near(before)

    @quick
    @given(structured | near(before))
    def check(content):
        (folder / name).write_bytes(content)
        refused(Artefact.load, folder, root=tmp_path)
        with tempfile.TemporaryDirectory(dir=made) as target:
            arguments = {"source": tiny.source("gemma3"), "calibration_dir": folder}
            out = Path(target) / "out"
            if refused(
                lambda: write_checkpoint(made / "base", out, **arguments), root=tmp_path.parent
            ):
                assert not out.exists()

    check()


BASE_CONFIG = {"model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"]}


def test_configs_of_bases(place, made):
    base = place / "base"
    base.mkdir()
    shutil.copy(made / "base/model.safetensors", base)
    chosen = Settings(model=str(base), license="mit")
    (base / "config.json").write_text(json.dumps(BASE_CONFIG))
    prepare(chosen)

    @quick
    @given(json_near(BASE_CONFIG) | near(hostile.dump(BASE_CONFIG)))
    @example(b'{"model_type": "gemma3", "architectures": []}')
    @example(b'{"model_type": "gemma3", "architectures": [3]}')
    @example(b'{"model_type": "gemma3", "architectures": 3}')
    @example(b'{"model_type": ["gemma3"]}')
    @example(b"[]")
    def check(content):
        (base / "config.json").write_bytes(content)
        refused(prepare, chosen, root=place)

    check()


@quick
@given(near(b'{"weight_map": {"a": "model-00001-of-00001.safetensors"}}'))
@example(b'{"weight_map": {"a": "../x.safetensors"}}')
@example(b'{"weight_map": {"a": "x\\u0000"}}')
@example(b'{"weight_map": {"a": "\\ud800"}}')
def test_indexes(place, content):
    path = place / "index" / "model.safetensors.index.json"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    refused(read_index, path, root=place)
    refused(weight_map, path.parent, root=place)


@quick
@given(near(b"\x08\0\0\0\0\0\0\0{}      "))
def test_weights(place, content):
    folder = place / "weights"
    folder.mkdir(exist_ok=True)
    (folder / "model.safetensors").write_bytes(content)
    refused(weight_map, folder, root=place)


TOML = b'model = "a/b"\nbatch_size = 8\nprivate = true\npush = "x"\nharmful = "a"\nlayer = 1\n'


@quick
@given(near(TOML))
@example(b"batch_size = " + b"1" * 5000)
@example(b"a = " + b"[" * 5000)
@example(b"model = {a = 1}")
@example(b"batch_size = [1]\nmodel = 'x'")
@example(b"private = 'perhaps'\nmodel = 'x'")
@example(b"private = [1, 2]\nmodel = 'x'")
@example(b"model = 'x'\noutput = 1979-05-27\nsuite = [[]]")
@example(b"evaluate = {suite = 1}")
def test_settings(place, content):
    path = place / "settings.toml"
    path.write_bytes(content)

    def call():
        context = cli.make_context("mars-export", ["--config", str(path)])
        read_settings(Settings, context, dict(context.params))

    refused(call, root=place)
