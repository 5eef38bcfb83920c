"""What users get wrong: one clear line, exit code 2, and nothing left on the disk."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from mars_export.common.errors import ExportError
from mars_export.pipeline.checks import check_modules_cache


@pytest.fixture
def refuses(mars, tmp_path):
    """Runs and checks that one line with `message` is all that happened."""

    def check(message, *arguments):
        before = sorted(tmp_path.rglob("*"))
        result = mars("--output", "out", "--display", "plain", *arguments)
        assert result.code == 2, result
        assert len(result.errors) == 1, result.errors
        assert result.errors[0].startswith("mars-export: error: ")
        assert message in result.errors[0]
        assert sorted(tmp_path.rglob("*")) == before

    return check


def test_a_path_that_does_not_exist(refuses):
    refuses("./nowhere is no directory here: give a model directory", "--model", "./nowhere")


def test_an_organism_that_does_not_exist(refuses):
    refuses("there is no organism 'llama'; bundled:", "--model", "organism:llama")
    refuses("no organism 'gema3'; is it gemma3?", "--model", "organism:gema3")
    refuses("no directory gemma3; is it organism:gemma3?", "--model", "gemma3")


def test_a_directory_without_weights(refuses, base):
    (base / "model.safetensors").unlink()
    refuses("has no safetensors weights", "--model", base)


def test_a_family_that_is_not_supported(refuses, base):
    (base / "config.json").write_text(json.dumps({"model_type": "made_up"}))
    refuses("model type 'made_up' is not supported", "--model", base)


def test_a_family_that_transformers_does_not_know_either(refuses, base):
    (base / "config.json").write_text(json.dumps({"model_type": "made_up"}))
    refuses("'made_up'", "--model", base, "--allow-unknown-family")


def test_a_missing_license(refuses, base):
    (base / "README.md").unlink()
    refuses("names no license: look it up and state it", "--model", base)


def test_another_license_than_the_card_says(refuses, base):
    refuses("inherits: leave out --license mit", "--model", base, "--license", "mit")


def test_a_broken_processor(refuses, base):
    refuses(f"the processor of {base} does not load: ", "--model", base)


def test_a_missing_prompt_file(refuses, base):
    files = ("--harmful", "bad.txt", "--harmless", "good.txt")
    refuses("bad.txt", "--model", base, *files)


def test_too_few_prompts(refuses, base, tmp_path):
    for name in ("bad.txt", "good.txt"):
        (tmp_path / name).write_text(f"{name} one\n{name} two\n")
    files = ("--harmful", "bad.txt", "--harmless", "good.txt")
    refuses("bad.txt holds 2 distinct prompts; give at least", "--model", base, *files)


def test_a_malformed_suite(refuses, base, tmp_path):
    (tmp_path / "suite.jsonl").write_text('{"id": "a"}\n')
    refuses("suite.jsonl has 2 problems: line 1: ", "--model", base, "--suite", "suite.jsonl")


def test_a_suite_without_evaluation_requests(refuses, base, tmp_path):
    record = dict.fromkeys(("image", "video")) | {
        "id": "a",
        "modality": "text",
        "harmful": True,
        "split": "calibration",
        "prompt": "x",
    }
    (tmp_path / "mine.jsonl").write_text(json.dumps(record) + "\n")
    refuses("mine has no request of the split", "--model", base, "--suite", "mine.jsonl")


def test_an_output_that_holds_other_files(refuses, base, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.tex").touch()
    refuses("out holds files that mars-export did not make", "--model", base, "--overwrite")


def test_an_output_that_is_the_base(mars, base):
    (base / "steering_manifest.json").touch()
    result = mars("--model", base, "--output", base, "--overwrite")
    assert result.code == 2
    assert "holds the base model" in result.errors[0]


def test_an_output_below_a_file(refuses, base, tmp_path):
    (tmp_path / "file").touch()
    refuses("file", "--model", base, "--output", "file/steered")


def test_a_layer_that_the_model_has_not(refuses):
    line = "--layer 99: the model has the layers 0 to "
    refuses(line, "--model", "organism:gemma3", "--layer", "99")


def test_a_folder_of_code_that_cannot_be_written(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setattr("transformers.utils.HF_MODULES_CACHE", str(tmp_path / "file" / "x"))
    with pytest.raises(ExportError, match=r"cannot be written: .*; set HF_MODULES_CACHE"):
        check_modules_cache()


def test_a_disk_without_room(refuses, base, monkeypatch):
    import shutil

    usage = shutil.disk_usage(base)._replace(free=1_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    refuses("has 0.00 GB free and 0.06 GB are needed; free some space", "--model", base)


def test_a_gpu_that_is_not_there(refuses, base, monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr("mars_export.pipeline.stages.check_processor", lambda *_: None)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    refuses("--device cuda: torch sees no GPU; install", "--model", base, "--device", "cuda")
    refuses("--device mps: torch sees no GPU of Apple", "--model", base, "--device", "mps")


@pytest.mark.parametrize("command", ["evaluate", "card", "push"])
def test_a_directory_that_is_not_steered(mars, command, base):
    result = mars(command, base, *(["org/name"] if command == "push" else []))
    assert result.code == 2
    assert "is not a steered checkpoint: steering_manifest.json cannot be read" in result.errors[-1]


@pytest.mark.parametrize(
    "command", ["evaluate", "attack", "card", "seal", "push", "recalibrate", "onnx", "drift"]
)
def test_a_directory_that_is_not_there(mars, command):
    for path in ("nowhere", "./nowhere/at/all"):
        assert mars(command, path).errors[-1].endswith(f"no directory {Path(path)}; check the path")
    assert "run `hf download org/name --local-dir" in mars(command, "org/name").errors[-1]
    Path("steered").mkdir()
    assert mars(command, "stered").errors[-1].endswith("directory stered; is it steered?")


UNPRIVILEGED = """
import os, sys
import transformers.utils.logging
import mars_export.cli.export, mars_export.cli.summary, mars_export.pipeline.stages
from mars_export.cli.main import main
if os.geteuid() == 0:  # root may write everywhere
    os.setgid(65534)
    os.setuid(65534)  # an interpreter below /root could import nothing from here on
main(["--model", sys.argv[1], "--output", sys.argv[2]])
"""


def test_a_place_that_may_not_be_written(base, tmp_path):
    locked = tmp_path / "locked"
    locked.mkdir(mode=0o555)
    for folder in list(tmp_path.parents)[:3]:
        folder.chmod(0o755)  # pytest's own are for its user only
    done = subprocess.run(
        [sys.executable, "-c", UNPRIVILEGED, str(base), str(locked / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert "cannot write" in done.stderr
    assert "Permission denied; " in done.stderr
    assert "choose another --output" in done.stderr


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs /proc")
def test_a_place_where_no_folder_can_be(refuses):
    refuses("cannot make /proc/x; choose", "--model", "organism:gemma3", "--output", "/proc/x/y")


def test_a_judge_that_does_not_exist(refuses):
    refuses(
        "there is no judge 'gpt'; choose rules, ", "--model", "organism:gemma3", "--judge", "gpt"
    )
