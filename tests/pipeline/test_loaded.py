"""Commands that load a steered checkpoint with a device map tell what it takes, or refuse it."""

import shutil
from dataclasses import replace
from unittest.mock import patch

import pytest
from transformers import LlamaConfig

from mars_export.common.errors import ExportError
from mars_export.evaluation.arms import open_arms
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.ready import load_models
from mars_export.families.memory import Memory, memory_of
from mars_export.families.placement import Placement
from mars_export.families.room import room_on
from mars_export.pipeline import loaded
from mars_export.pipeline.capacity import in_bytes
from mars_export.pipeline.loaded import check_loaded
from support import bases, zoo

pytest.importorskip("accelerate")


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bases.save_whole_base(tmp_path_factory.mktemp("base") / "tiny", "llama")


@pytest.fixture(scope="module")
def steered(base, tmp_path_factory):
    output = tmp_path_factory.mktemp("made") / "steered"
    with bases.quick_exports():
        assert bases.command("--model", base, "--output", output).code == 0
    return output


@pytest.fixture(scope="module")
def weights(base):
    return memory_of(base, zoo.family("llama"), dtype="auto", quantization="none").weights


@pytest.fixture
def half(weights):
    """Options of a device map that leaves about half of the weights to the disk."""
    return "--device-map", "auto", "--max-memory", f"cpu={weights.total // 2000}KB"


def spread(memory, **changes):
    where = Placement(device="cpu", max_memory={"cpu": memory})
    return EvaluationOptions(device=where, **changes)


def test_what_a_checkpoint_takes_is_told(steered, weights):
    told = check_loaded(steered, spread(weights.total // 2))
    assert told.startswith(f"memory: {in_bytes(weights.total)} of weights (float32), about ")
    assert "weights on cpu: " in told
    assert ", disk: " in told
    assert check_loaded(steered, EvaluationOptions(device="cpu")) == ""


@pytest.fixture
def two(steered, tmp_path):
    """Arms that bring a second checkpoint."""
    return (f"other={shutil.copytree(steered, tmp_path / 'other')}",)


def test_checkpoints_that_are_loaded_at_once_count_together(steered, weights, two):
    told = check_loaded(steered, spread(weights.total, arms=two))
    assert told.startswith(f"memory: {in_bytes(2 * weights.total)} of weights (float32), ")
    assert told.endswith("; 2 checkpoints at once")
    assert ", disk: " in told
    room = 3 * weights.largest
    assert check_loaded(steered, spread(room))
    with pytest.raises(ExportError, match=r"its largest layer takes .*; 2 checkpoints at once$"):
        check_loaded(steered, spread(room // 2, arms=two))


def test_each_checkpoint_counts_as_it_is_loaded(steered, weights, two, monkeypatch):
    seen = []

    def planned(directory, *_, quantization, **__):
        seen.append(directory.name)
        size = weights.total if directory == steered else weights.total // 2
        return Memory(replace(weights, total=size), "float32", LlamaConfig())

    monkeypatch.setattr(loaded, "memory_of", planned)
    told = check_loaded(steered, spread(4 * weights.total, arms=two))
    assert seen == ["steered", "other"]
    assert told.startswith(f"memory: {in_bytes(1.5 * weights.total)} of weights")


def test_checkpoints_share_a_placement(steered, two):
    where = Placement(max_memory={"0": 30, "cpu": 7})
    assert where.shared_by(1) is where
    assert where.shared_by(3).max_memory == {"0": 10, "cpu": 2}
    split = Placement(split=True)
    assert split.shared_by(3) is split
    free = room_on("cpu")
    each = Placement(device="cpu").shared_by(2).max_memory["cpu"]
    assert 0.3 * free < each < 0.6 * free
    seen = []
    with patch("mars_export.evaluation.ready.load_calibrated", lambda *a: seen.append(a[2])):
        load_models(open_arms(steered, two), where, None)
    assert [one.max_memory for one in seen] == [{"0": 15, "cpu": 3}] * 2


def test_attacks_take_no_layer_from_elsewhere(steered, half, weights):
    done = bases.command("attack", steered, *half, "--suite", "xstest", "--display", "none")
    assert done.code == 2
    (line,) = done.errors
    assert "attacks take gradients, for which all layers have to be on GPUs" in line
    whole = spread(10 * weights.total)
    assert check_loaded(steered, whole, gradients=True).endswith(
        f"weights on cpu: {in_bytes(weights.total)}"
    )


def test_what_fits_nowhere_is_one_line_before_anything_is_loaded(steered):
    words = ("--device-map", "auto", "--max-memory", "cpu=1KB", "--display", "none")
    done = bases.command("evaluate", steered, *words, "--suite", "xstest")
    assert done.code == 2
    assert "its largest layer takes " in done.errors[-1]


def test_a_model_is_split_by_several_processes_that_can(steered, monkeypatch):
    split = EvaluationOptions(device=Placement(device="cpu", split=True))
    with pytest.raises(ExportError, match="and this is only one; start them with `torchrun"):
        check_loaded(steered, split)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert check_loaded(steered, split).endswith(" free for each process")
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(ExportError, match=r"cannot be split 3 ways; use --device-map auto"):
        check_loaded(steered, split)


def test_a_family_without_a_plan_is_not_split(tmp_path, monkeypatch):
    base = bases.save_whole_base(tmp_path / "base", "qwen3_vl")
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr("mars_export.pipeline.stages.joined", _alone)
    words = ("--output", tmp_path / "out", "--tensor-parallel", "--display", "none")
    monkeypatch.setattr("mars_export.cli.main.process_count", lambda: 1)
    done = bases.command("--model", base, *words)
    assert done.code == 2
    assert "no tensor parallel plan for its layers; use --device-map auto" in done.errors[-1]
    assert not (tmp_path / "out").exists()


def _alone():
    """Stands for a group whose other processes are not there."""
    from contextlib import nullcontext

    from mars_export.families.processes import Processes

    return nullcontext(Processes())


def test_a_checkpoint_is_calibrated_anew_with_a_device_map(steered, half, tmp_path, monkeypatch):
    seen = []

    def calibrate(model, *arguments, **options):
        seen.append(sum(parameter.is_meta for parameter in model.parameters()))
        return bases.quick_calibrate(model, *arguments, **options)

    prompts = []
    for label in ("harmful", "harmless"):
        path = tmp_path / f"{label}.txt"
        path.write_text("".join(f"{label} request {number}\n" for number in range(60)))
        prompts += [f"--{label}", path]
    with bases.quick_exports(), monkeypatch.context() as patch:
        patch.setattr("mars_export.methods.calibrate.calibrate", calibrate)
        done = bases.command(
            "recalibrate", steered, "--output", tmp_path / "again", *half, *prompts
        )
    assert done.code == 0, done.errors
    assert seen[0] > 5
    assert any(line.startswith("memory: ") and ", disk: " in line for line in done.errors)
