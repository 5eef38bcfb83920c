"""The command in two processes makes what one makes, and an error in one ends both in one line."""

import json
import math
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from support import bases, broken_run, saved

ORGANISM = Path(__file__).parents[2] / "examples" / "organisms" / "gemma3"
PROMPTS = 40
ASKED = 3


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """Options of a small run on the toy model, and the folder with what they name."""
    folder = tmp_path_factory.mktemp("asked")
    rows = [json.loads(line) for line in (ORGANISM / "suite.jsonl").read_text().splitlines()]
    texts = [row for row in rows if row["modality"] == "text"]
    options = ["--model", "organism:gemma3", "--suite", "suite.jsonl", "--method", "addition"]
    for label in (True, False):
        said = [row["prompt"] for row in texts if row["harmful"] == label]
        name = "harmful" if label else "harmless"
        (folder / f"{name}.txt").write_text("\n".join(dict.fromkeys(said[:PROMPTS])))
        options += [f"--{name}", f"{name}.txt"]
    shown = [row for row in rows if row["split"] == "evaluation"]
    cells = [
        [row for row in shown if (row["modality"], row["harmful"]) == (modality, label)][:ASKED]
        for modality in ("text", "image")
        for label in (True, False)
    ]
    lines = [json.dumps(row) + "\n" for cell in cells for row in cell]
    (folder / "suite.jsonl").write_text("".join(lines))
    shutil.copytree(ORGANISM / "images", folder / "images")
    rest = ["--no-controls", "--arm", "none", "--max-new-tokens", "4", "--batch-size", "8"]
    return [*options, *rest, "--device", "cpu", "--display", "none"], folder


@pytest.fixture(scope="module")
def alone(asked, main_job):
    options, folder = asked
    main_job(*options, "--output", "alone", cwd=folder)
    return folder / "alone"


def in_two(asked, command_in_ranks, name, *further):
    """What two processes made, of which only the first may print."""
    options, folder = asked
    first, second = command_in_ranks(*options, *further, "--output", name, cwd=folder)
    assert (first.returncode, second.returncode) == (0, 0), first.stderr + second.stderr
    assert first.stdout == f"{name}\n"
    assert (second.stdout, second.stderr) == ("", "")
    assert not list(folder.glob(".*.mars-export"))
    return folder / name


def answers(directory):
    lines = (directory / "evaluation" / "samples.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def test_shared_requests_give_the_checkpoint_of_one_process(asked, alone, command_in_ranks):
    shared = in_two(asked, command_in_ranks, "shared")
    saved.require_same(shared / "calibration", alone / "calibration")
    assert answers(shared) == answers(alone)
    names = {path.relative_to(alone) for path in alone.rglob("*")}
    assert {path.relative_to(shared) for path in shared.rglob("*")} == names


def test_a_split_model_gives_it_within_the_tolerance(asked, alone, command_in_ranks):
    split = in_two(asked, command_in_ranks, "split", "--tensor-parallel")
    saved.require_close(split / "calibration", alone / "calibration")
    assert [a["response"] for a in answers(split)] == [a["response"] for a in answers(alone)]


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return bases.save_whole_base(tmp_path_factory.mktemp("base") / "tiny", "llama")


@pytest.mark.parametrize(
    ("broken", "codes", "line"),
    [
        (broken_run.first_refuses, {2}, "error: no such direction"),
        (broken_run.second_refuses, {2}, "error: no such direction"),
        (broken_run.both_refuse, {2}, "error: no such direction"),
        (broken_run.second_crashes, {1}, "internal error: ZeroDivisionError"),
        (broken_run.second_dies, {2, -9}, "error: another of the 2 processes has ended"),
    ],
)
def test_an_error_in_one_process_ends_both_in_one_line(
    base, tmp_path, command_in_ranks, broken, codes, line
):
    words = ("--model", base, "--output", "out", "--device", "cpu", "--display", "none")
    done = command_in_ranks(*words, cwd=tmp_path, broken=broken)
    assert {each.returncode for each in done} == codes, [each.stderr for each in done]
    (said,) = [text for each in done for text in each.stderr.splitlines()]
    assert said.startswith(f"mars-export: {line}")
    assert not (tmp_path / "out").exists()


def test_a_part_that_one_process_holds_is_looked_at(base, tmp_path, command_in_ranks):
    bad = bases.copy_of(base, tmp_path / "bad")
    name = "model.layers.1.self_attn.q_proj.weight"
    index = json.loads((bad / "model.safetensors.index.json").read_text())
    shard = bad / index["weight_map"][name]
    tensors = load_file(shard)
    tensors[name][-1, 0] = math.nan  # of the second process
    save_file(tensors, shard, metadata={"format": "pt"})
    words = ("--model", bad, "--output", "out", "--tensor-parallel", "--device", "cpu")
    done = command_in_ranks(*words, "--display", "none", cwd=tmp_path)
    assert [each.returncode for each in done] == [2, 2]
    (said,) = [text for each in done for text in each.stderr.splitlines()]
    assert f"the tensor {name} is not finite" in said


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (("--model", "x", "--device-map", "auto"), "--device-map gives one process all devices"),
        (("--model", "x", "--tensor"), "No such option"),
        (("attack", "x"), "attack runs in one process; start it without a launcher"),
    ],
)
def test_what_processes_cannot_do_is_one_line(tmp_path, command_in_ranks, words, line):
    done = command_in_ranks(*words, cwd=tmp_path)
    assert [each.returncode for each in done] == [2, 2]
    (said,) = [text for each in done for text in each.stderr.splitlines()]
    assert line in said
