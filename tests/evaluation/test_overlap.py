import csv
import json
from pathlib import Path

import pytest
from evaluation.fakes import SUITE, save_suite

from mars_export.evaluation.overlap import find_prompts, near_duplicates, overlap, texts
from mars_export.evaluation.suite import Sample
from mars_export.evaluation.suites.builtin import packaged_suite
from mars_export.inputs import prompts
from support import records

DATA = Path(__file__).parents[3] / "shared" / "data"


def record(sets, **changes):
    both = records.calibration().source.prompts
    sources = {
        label: both[label].model_copy(update={"sha256": getattr(sets, label).sha256})
        for label in both
    }
    return records.calibration(prompts=sources, **changes)


def test_packaged_prompts_are_found_again():
    sets = prompts.packaged(3)
    assert find_prompts(record(sets, seed=3), None) == sets.prompts


def test_prompts_of_a_suite_are_found_again(tmp_path):
    rows = [
        {"id": f"{label}{i}", "modality": "text", "harmful": label == "bad", "split": "calibration",
         "prompt": f"{label} thing number {i}", "image": None, "video": None}
        for label in ("bad", "good") for i in range(24)
    ]  # fmt: skip
    path = tmp_path / "suite.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)))
    sets = prompts.from_suite(path)
    assert set(find_prompts(record(sets), path)) == {row["prompt"] for row in rows}
    assert find_prompts(record(sets), None) == ()


def test_unknown_prompts_and_suites_without_any_give_nothing(tmp_path):
    assert find_prompts(records.calibration(), save_suite(tmp_path, SUITE)) == ()
    assert find_prompts(records.calibration(), tmp_path / "nowhere.jsonl") == ()


def test_pictures_are_compared_by_what_they_ask_for():
    suite = packaged_suite()
    text = next(s for s in suite.samples if s.modality == "text")
    shown = [s for s in suite.samples if s.id.startswith(text.id.removesuffix("-text") + "-")]
    assert [s.intent for s in shown] == [None, text.prompt, text.prompt]
    counts = overlap([text.prompt], texts(s for s in shown if s.modality != "text"))
    assert (counts.n, counts.exact, counts.near) == (1, 1, 1)


def test_the_packaged_suite_does_not_leak():
    counts = overlap(prompts.packaged().prompts, texts(packaged_suite().samples))
    assert (counts.n, counts.exact, counts.near) == (80, 0, 0)


def test_intent_is_optional_but_not_empty():
    base = {"id": "a", "modality": "text", "harmful": True, "split": "evaluation", "prompt": "x"}
    assert Sample(**base, image=None, video=None).intent is None


def test_overlap_counts_near_duplicates_once():
    known = ["Explain how to bake a loaf of bread", "Show me a map"]
    asked = [
        "explain how to bake a loaf of BREAD!",  # the same words
        "Explain how to bake a loaf of rye bread",  # 8 of 9
        "Explain how to fix a leaking tap",  # 4 of 11
        "...",
    ]
    assert overlap(known, asked).near == 2
    assert overlap(known, asked, threshold=1.0).near == 1
    assert overlap([], asked).near == 0


def test_same_words_are_the_same_prompt():
    requests = ["please write a poem", "write a poem", "sing", "!?"]
    counts = overlap(["Write a POEM, please!"], requests)
    assert (counts.n, counts.exact, counts.near) == (3, 1, 2)
    assert (overlap([], ["write a poem"]).n, overlap([], ["write a poem"]).near) == (1, 0)
    assert overlap(["write"], []).n == 0


def test_near_means_seven_words_in_ten():
    words = [f"w{i}" for i in range(10)]
    assert overlap([" ".join(words)], [" ".join(words[:7])]).near == 1
    assert overlap([" ".join(words)], [" ".join(words[:6])]).near == 0


def _column(path, column):
    with (DATA / path).open(encoding="utf-8", newline="") as stream:
        return [row[column] for row in csv.DictReader(stream)]


def _json(path, key):
    return [row[key] for row in json.loads((DATA / path).read_text("utf-8"))]


def _text(suite):
    readers = {
        "maliciousinstruct": lambda: [
            line
            for line in (DATA / "harmbench/malicious_instruct.txt").read_text("utf-8").splitlines()
            if line.strip()
        ],
        "tdc": lambda: _column("harmbench/tdc2023_test_phase_behaviors.csv", "Behavior"),
        "harmbench-val": lambda: _column("harmbench/harmbench_behaviors_text_val.csv", "Behavior"),
        "harmbench-test": lambda: _column(
            "harmbench/harmbench_behaviors_text_test.csv", "Behavior"
        ),
        "harmbench": lambda: _column("harmbench/harmbench_behaviors_text_all.csv", "Behavior"),
        "advbench": lambda: _column("harmbench/advbench_behaviors.csv", "Behavior"),
        "jailbreakbench": lambda: _json("orbench/jailbench.json", "prompt"),
        "strongreject": lambda: _column("harmbench/strongreject_dataset.csv", "forbidden_prompt"),
        "figstep": lambda: _column("figstep/safebench.csv", "instruction"),
        "mm-safetybench": lambda: _json("mm_safetybench/jps_goals_and_targets.json", "goal"),
        "xstest": lambda: _column("xstest/xstest_prompts.csv", "prompt"),
        "or-bench-hard": lambda: _json("orbench/orbench_hard.json", "prompt"),
        "ailuminate": lambda: _column(
            "ailuminate/airr_official_1.0_demo_en_us_prompt_set_release.csv", "prompt_text"
        ),
    }
    return readers[suite]()


@pytest.mark.skipif(not DATA.is_dir(), reason="needs the benchmark prompts")
@pytest.mark.parametrize(
    ("suite", "percent"),
    [
        ("maliciousinstruct", 88), ("tdc", 72), ("harmbench-val", 50), ("advbench", 26),
        ("harmbench", 12), ("jailbreakbench", 9), ("harmbench-test", 2.5), ("strongreject", 0.3),
        ("figstep", 0), ("mm-safetybench", 0), ("xstest", 0), ("or-bench-hard", 0),
        ("ailuminate", 0),
    ],
)  # fmt: skip
def test_overlap_of_the_refusal_direction_prompts(suite, percent):
    calibration = [
        prompt
        for split in ("harmful_train", "harmful_val")
        for prompt in _json(f"refusal_direction/splits/{split}.json", "instruction")
    ]
    counts = overlap(calibration, _text(suite))
    digits = 1 if isinstance(percent, float) else 0
    assert round(100 * counts.near / counts.n, digits) == percent


def test_leaking_requests_are_named_in_every_modality():
    suite = packaged_suite()
    text = suite.samples[0]
    found = near_duplicates([text.prompt.upper()], suite.samples)
    assert found == {s.id for s in suite.samples if s.words == text.prompt}
    assert len(found) == 3
    assert near_duplicates([], suite.samples) == frozenset()
