import json

from evaluation.fakes import SUITE, save_suite

from mars_export.evaluation.leakage import find_prompts, overlap
from mars_export.evaluation.suite import Sample
from mars_export.evaluation.suites.builtin import packaged_suite
from mars_export.inputs import prompts
from support import records


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
    assert overlap((), packaged_suite().samples) is None


def test_pictures_are_compared_by_what_they_ask_for():
    suite = packaged_suite()
    text = next(s for s in suite.samples if s.modality == "text")
    shown = [s for s in suite.samples if s.id.startswith(text.id.removesuffix("-text") + "-")]
    assert [s.intent for s in shown] == [None, text.prompt, text.prompt]
    found = overlap([text.prompt], [s for s in shown if s.modality != "text"])
    assert (found.n, found.exact, found.near) == (1, 1, 1)


def test_the_packaged_suite_does_not_leak():
    found = overlap(prompts.packaged().prompts, packaged_suite().samples)
    assert (found.n, found.exact, found.near) == (80, 0, 0)


def test_intent_is_optional_but_not_empty():
    base = {"id": "a", "modality": "text", "harmful": True, "split": "evaluation", "prompt": "x"}
    assert Sample(**base, image=None, video=None).intent is None
