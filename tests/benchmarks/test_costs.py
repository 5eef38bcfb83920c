"""The benchmarks of memory, calibration, evaluation and export: what they count, never a time."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "examples" / "benchmarks"
RESULTS = sorted((ROOT / "results").glob("*.json"))


@pytest.fixture(scope="module")
def script():
    """One of the scripts; by its path, for there are folders of tests of the same names."""
    sys.path.insert(0, str(ROOT))

    def load(name):
        spec = importlib.util.spec_from_file_location(f"benchmark_{name}", ROOT / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module

    try:
        yield load
    finally:
        sys.path.remove(str(ROOT))


@pytest.fixture
def run(script, tmp_path, capsys):
    """Run a script, and give its results and its table."""

    def run(name, *words):
        path = tmp_path / f"{name}.json"
        script(name).main([*words, "--work", str(tmp_path), "--json", str(path)])
        return json.loads(path.read_text()), capsys.readouterr().out

    return run


def test_memory_is_that_of_two_processes(run):
    found, table = run("memory", "--shape", "tiny", "--tokens", "16", "--rounds", "1")
    ((base,), (steered,)) = found["rows"][0]["bytes"].values()
    assert 0.8 < steered / base < 1.2
    assert base > 1e8
    assert "| 16 | 1 |" in table


def test_an_export_links_and_reads_once(run, tmp_path):
    words = ("--shape", "tiny", "--gigabytes", "0.02", "--shard-gigabytes", "0.01")
    found, table = run("export", *words)
    assert found["bytes"] >= 2e7
    assert found["shards"] == 3
    assert found["linked"]
    assert {"read", "hash", "sha256sum", "export", "copy"} == found["rows"].keys()
    assert "hard links" in table
    assert [path.name for path in tmp_path.iterdir()] == ["export.json"]


def test_a_calibration_is_compared_with_its_own_forwards(run):
    words = ("--per-label", "16", "--pairs", "4", "--rounds", "1", "--no-memory")
    found, table = run("calibration", *words)
    counts = found["counts"]
    assert counts["rows"] > counts["distinct"] > 100
    assert counts["forwards"] < counts["rows"] / 2
    inside = found["inside"][0]
    assert inside["inputs"] > 0
    assert 0 < inside["forwards"] < found["seconds"]["calibration"][0]
    assert "beside bare forwards" in table


def test_an_evaluation_is_compared_with_its_own_answers(run):
    words = ("--per-label", "16", "--per-cell", "2", "--new-tokens", "3", "--rounds", "1")
    found, table = run("evaluation", *words)
    assert found["answers"] == 2 * 2 * 3 * 2  # requests, labels, modalities, arms
    assert found["batches"] == 6
    assert "beside bare generation" in table


@pytest.mark.parametrize("path", RESULTS, ids=lambda path: path.stem)
def test_the_readme_shows_the_committed_numbers(script, path):
    results = json.loads(path.read_text())
    table = script(results.get("kind", "benchmark")).table(results)
    place = f"<!-- results {path.stem} -->\n{table}\n<!-- end -->"
    assert place in (ROOT / "README.md").read_text()


def test_a_widened_organism_answers_as_before(script, tmp_path):
    import shutil

    import torch
    import transformers
    from speed.widen import widen

    organism = ROOT.parent / "organisms" / "qwen3_vl"
    for name in ("config.json", "model.safetensors"):
        shutil.copy(organism / name, tmp_path)
    widen(tmp_path, 3)
    narrow, wide = (
        transformers.AutoModelForImageTextToText.from_pretrained(path).eval()
        for path in (organism, tmp_path)
    )
    assert (
        wide.config.text_config.intermediate_size == 3 * narrow.config.text_config.intermediate_size
    )
    ids = torch.arange(20, 40)[None]
    with torch.inference_mode():
        torch.testing.assert_close(wide(ids).logits, narrow(ids).logits)
