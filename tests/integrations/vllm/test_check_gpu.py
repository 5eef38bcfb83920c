"""The logic of the check that needs a GPU: it passes what is right, and nothing else."""

import importlib.util
import json
import sys

import pytest

from support.organisms import ORGANISMS

PATH = ORGANISMS.parent / "serving/check_gpu.py"
MACHINE = {"gpu": "H", "vllm": "0.32.0", "torch": "2"}
WANTED = [
    {"token": 5, "steered": [[3, "text", 0.0]], "on": -1.0, "off": -1.0, "length": 4},
    {
        "token": 7,
        "steered": [[2, "text", 0.9], [9, "image", 0.8]],
        "on": -0.5,
        "off": -4.0,
        "kind": "image",
    },
]
FAKE = """
import json, sys, time
part, _, _, said = sys.argv[1:5]
if part == "graphs":
    sys.exit("(EngineCore pid=1) ERROR 12-01 [core.py:1] x.y.OddError: bad\\nLastError: later")
if part == "speed":
    print("slow", flush=True)
    time.sleep(60)
open(said, "w").write(json.dumps({"said": SAID, "machine": {}, "graphs": "NONE", "otherwise": []}))
"""


@pytest.fixture
def check():
    spec = importlib.util.spec_from_file_location("check_gpu", PATH)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def told(**changes):
    """What the parts say; `eager_1_token=6` changes what one of them says to a request."""
    alike = [{"token": one["token"], "on": one["on"], "steered": one["steered"]} for one in WANTED]
    made = {
        "transformers": {"said": WANTED, "machine": MACHINE},
        "eager": {"said": [dict(one) for one in alike], "graphs": "NONE", "otherwise": []},
        "graphs": {"said": [{**one, "steered": None} for one in alike], "graphs": "FULL_DECODE"},
        "speed": {"pairs": [[1.0, 0.99], [1.0, 1.0], [2.0, 1.99]], "graphs": "FULL"},
        "default": {"seconds": [1.0, 1.1, 0.9]},
    }
    for path, value in changes.items():
        part, *where = path.split("_")
        if len(where) == 2:
            made[part]["said"][int(where[0])][where[1]] = value
        else:
            made[part][where[0]] = value
    return made


def ended(check, **why):
    return dict.fromkeys(check.PARTS, "") | why


def test_what_is_right_passes(check):
    found = check.results(told(), ended(check))
    assert found["passed"], found["wrong"]
    assert found["decode_ratio"] == pytest.approx(0.995)
    assert found["decode_ratio_to_default"] == pytest.approx(1.0)
    assert (found["requests"], found["changed_by_steering"], found["gpu"]) == (2, 1, "H")
    assert found["largest_gate_difference"] == {"text": 0.0, "image": 0.0}


WRONG = {
    "eager: request 0: first token 6, not 5": {"eager_0_token": 6},
    "graphs: request 1: first token 6, not 7": {"graphs_1_token": 6},
    "nearer to that without steering": {"graphs_1_on": -3.0},
    "steered at [[4, 'text']]": {"eager_0_steered": [[4, "text", 0.0]]},
    "steered at []": {"eager_1_steered": []},
    "a gate of text differs by 0.100": {
        "eager_1_steered": [[2, "text", 0.8], [9, "image", 0.8]],
    },
    "graphs: vLLM ran with NONE": {"graphs_graphs": "NONE"},
    "speed: vLLM ran with PIECEWISE": {"speed_graphs": "PIECEWISE"},
    "decoding at 0.980": {"speed_pairs": [[1.0, 0.98]]},
    "nothing is shown": {"transformers_said": WANTED[:1]},
    "0 answers to 2 requests": {"eager_said": []},
}  # fmt: skip


@pytest.mark.parametrize("sentence", WRONG)
def test_anything_wrong_fails(check, sentence):
    found = check.results(told(**WRONG[sentence]), ended(check))
    assert not found["passed"]
    assert any(sentence in line for line in found["wrong"]), found["wrong"]


def test_what_vllm_sees_otherwise_is_told_and_graphs_are_compared_with_that(check):
    gates = [[2, "text", 0.9], [9, "image", 0.5]]
    otherwise = {"eager_1_token": 6, "eager_1_steered": gates, "graphs_1_token": 6}
    found = check.results(told(**otherwise, eager_otherwise=["no DeepStack"]), ended(check))
    assert found["passed"], found["wrong"]
    assert found["of_vllm_itself"] == ["no DeepStack"]
    assert found["beside_pictures_and_clips"] == [
        "request 1: first token 6, not 7", "request 1: a gate of image differs by 0.300",
    ]  # fmt: skip
    assert found["largest_gate_difference"] == pytest.approx({"text": 0.0, "image": 0.3})
    for wrong in ({}, {"eager_0_token": 6}, {"eager_1_steered": [[3, "text", 0.9]]}):
        known = ["no DeepStack"] if wrong else []
        changed = told(**(otherwise | wrong), eager_otherwise=known)
        assert not check.results(changed, ended(check))["passed"]


def test_a_part_that_did_not_run_is_told_and_the_others_count(check):
    said = told()
    for name in ("graphs", "speed", "default"):
        del said[name]
    found = check.results(said, ended(check, graphs="no graphs here", speed="no time was left"))
    assert not found["passed"]
    assert found["parts"]["eager"] == "ran"
    assert found["wrong"] == ["graphs: no graphs here", "speed: no time was left"]


@pytest.fixture
def main(check, tmp_path, monkeypatch):
    """Runs the program with a stand-in for the parts; its exit code and its file."""
    sides = tmp_path / "sides.py"
    sides.write_text(f"SAID = {WANTED!r}\n" + FAKE)
    monkeypatch.setattr(check, "SIDES", sides)

    def run(*options):
        out = tmp_path / "check.json"
        command = ["check_gpu.py", "steered", "base", "--output", str(out), *options]
        monkeypatch.setattr(sys, "argv", command)
        with pytest.raises(SystemExit) as ended:
            check.main()
        return ended.value.code, json.loads(out.read_text()) if out.exists() else None

    return run


def test_parts_run_by_themselves_and_say_why_they_did_not(main):
    code, found = main("--parts", "transformers", "eager", "graphs", "default")
    assert code == 1
    why = found["parts"]
    assert (why["transformers"], why["eager"], why["default"]) == ("ran",) * 3
    assert "OddError: bad; see " in why["graphs"]


def test_a_part_that_takes_too_long_is_ended(main, check, tmp_path):
    out = str(tmp_path / "check.json")
    asked = check.parser().parse_args(["steered", "base", "--output", out])
    assert "was ended after 2 s; see " in check.run("speed", asked, 2)[0]
    assert check.run("default", asked, 0) == ("no time was left", None)
    assert "nothing of Transformers" in check.run("eager", asked, 9)[0]


def test_some_parts_alone(main):
    code, found = main("--parts", "eager")
    assert code == 1
    assert found["parts"] == {
        "transformers": "ran", "eager": "ran", "graphs": "was left out", "speed": "was left out",
        "default": "was left out",
    }  # fmt: skip


def test_numbers_that_make_no_sense_end_at_once(main, capsys):
    for wrong in (("--pairs", "0"), ("--minutes", "nan"), ("--parts", "all")):
        assert main(*wrong) == (2, None)


def test_a_silent_part_is_told_as_well(check):
    assert check.cause("") == "it said nothing"
    assert check.cause("a\nKilled\n") == "Killed"


def test_every_part_has_its_side(check):
    spec = importlib.util.spec_from_file_location("gpu_sides", check.SIDES)
    sides = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sides)
    assert tuple(sides.SIDES) == check.PARTS
