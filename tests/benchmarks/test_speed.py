"""The benchmark runs on a tiny model: structure is asserted, never a time."""

import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "examples" / "benchmarks"
LENGTHS = ("8", "12")


@pytest.fixture(scope="module")
def benchmark():
    sys.path.insert(0, str(ROOT))
    try:
        import benchmark

        yield benchmark
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture(scope="module")
def measured(benchmark, tmp_path_factory):
    path = tmp_path_factory.mktemp("benchmark") / "tiny.json"
    options = {
        "--shape": "tiny", "--rounds": "2", "--batches": "1", "--most-tokens": "8",
        "--new-tokens": "3", "--side": "4", "--backend": "eager", "--json": str(path),
    }  # fmt: skip
    words = [word for option in options.items() for word in option]
    benchmark.main([*words, "--prompt-tokens", *LENGTHS])
    return json.loads(path.read_text())


def test_every_case_is_measured_in_pairs(benchmark, measured):
    ours = [row for row in measured["rows"] if row["subject"] == "mars-export"]
    found = {(row["way"], row["prompt"], row["rows"]) for row in ours}
    cases = {(c.way, c.prompt, c.rows) for c in benchmark.CASES if c.rows == 1}
    assert found == {case for case in cases if case[0] != "tools (text decoder)"}
    assert measured["not_measured"] == []
    assert {row["tokens"] for row in measured["rows"]} == {8}  # 12 are more than the most
    for row in measured["rows"]:
        assert len(row["ratios"]) == 2
        assert 0 < row["low"] <= row["ratio"] <= row["high"]
    phases = {row["phase"] for row in ours}
    assert phases == {"prefill", "decode"}


def test_every_tool_ran_or_says_why_not(measured):
    from speed.tools import TOOLS

    ran = {row["subject"] for row in measured["rows"]}
    told = {line.split(":")[0] for line in measured["skipped"]}
    assert ran | told == {"mars-export", "base again"} | {tool.name for tool in TOOLS}
    assert all("pip install" in line for line in measured["skipped"] if "not installed" in line)
    assert "PyTorch forward hook" in ran


def test_files_and_memory_are_those_of_the_steering_alone(measured):
    assert measured["resources"]["resident_bytes"] == 4 * (64 + 3 * (2 + 2 + 1 + 5))
    assert 0 < measured["export"]["new_bytes"] < 2e6
    assert measured["export"]["beside_seconds"] > 0
    assert measured["load"]["ratio"] > 0


def test_a_decode_step_of_generate_runs_the_operations_of_the_base(measured):
    found = measured["operations"]
    assert found["decode"]["base"] == found["decode"]["mars-export"] > 100
    assert found["prefill"]["base"] < found["prefill"]["mars-export"]


def test_the_table_goes_between_its_markers(benchmark, measured, tmp_path):
    text = benchmark.table(measured)
    for word in ("generate", "compiled generate", "decode ratio", "load time", "new bytes"):
        assert word in text
    readme = tmp_path / "README.md"
    readme.write_text("before\n<!-- results a -->\nold\n<!-- end -->\nafter\n")
    benchmark.into_readme(readme, "a", text)
    assert readme.read_text() == f"before\n<!-- results a -->\n{text}\n<!-- end -->\nafter\n"
    with pytest.raises(ValueError, match="has no place"):
        benchmark.into_readme(readme, "b", text)


def test_wrong_options_are_one_line(benchmark, capsys):
    with pytest.raises(SystemExit) as caught:
        benchmark.main(["--new-tokens", "1"])
    assert caught.value.code == 2
    assert "decoding needs at least 2" in capsys.readouterr().err


def test_steered_and_base_share_their_weights_and_only_equal_ones(tmp_path, benchmark):
    import torch
    from speed.bench import load
    from speed.shapes import SHAPES, make_base, make_steered, share_weights

    shape, device = SHAPES["tiny"], torch.device("cpu")
    make_base(shape, tmp_path / "base", device)
    pair = make_steered(shape, tmp_path / "base", tmp_path)
    base, steered = load(pair.base, device), load(pair.steered, device)
    share_weights(steered, base)
    ours = {name: tensor.data_ptr() for name, tensor in steered.state_dict().items()}
    theirs = {name: tensor.data_ptr() for name, tensor in base.state_dict().items()}
    assert ours.items() > theirs.items()
    assert all("steering" in name for name in ours.keys() - theirs.keys())
    steered.verify_steering()
    other = load(pair.base, device)
    other.lm_head.weight.data += 1
    with pytest.raises(ValueError, match="is not that of the base"):
        share_weights(steered, other)


def test_every_tool_makes_the_same_edit(tmp_path, benchmark):
    """Those installed here generate what a plain forward hook with the vector makes."""
    import torch
    from speed.bench import load
    from speed.requests import make_request
    from speed.shapes import PUSH, SHAPES, make_base, make_steered
    from speed.tools import TOOLS, text_decoder, twin

    shape, device = SHAPES["tiny"], torch.device("cpu")
    make_base(shape, tmp_path / "base", device)
    pair = make_steered(shape, tmp_path / "base", tmp_path)
    whole = load(pair.base, device)
    vector = (PUSH * pair.direction).bfloat16()
    request = make_request(shape, "text", 2, 12, 4, device)
    del request["mm_token_type_ids"]
    options = {"max_new_tokens": 4, "min_new_tokens": 4, "do_sample": False}
    for tool in (tool for tool in TOOLS if tool.version() is not None):
        model = text_decoder(whole) if tool.text_only else whole
        with TOOLS[0].steer(model, shape.layer, vector) as generate:
            want = generate(**request, **options)
        with tool.steer(twin(model), shape.layer, vector) as generate:
            assert generate(**request, **options).equal(want), tool.name
        assert not model.generate(**request, **options).equal(want), tool.name
