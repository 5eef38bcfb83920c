"""`--tune-on SUITE`: which requests are taken, what is refused before long work, what is kept."""

import json
import shutil

import pytest
from PIL import Image
from pydantic import ValidationError

from mars_export.calibration.source import TuningSource
from mars_export.checkpoint.manifest import MANIFEST_NAME
from mars_export.common.errors import ExportError
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.integrations.finetune.drift import _require_same_tuning
from mars_export.pipeline.comparison import _settings_for
from mars_export.pipeline.comparison_settings import ComparisonSettings
from mars_export.pipeline.evaluation import _require_untuned
from mars_export.pipeline.kept import calibrated_on, find_tuning, keep_suites, keep_tuning
from mars_export.pipeline.settings import NO_TUNING, Settings
from mars_export.pipeline.trained import like_parent
from mars_export.pipeline.tuning import MOST, tuning_set
from support import records

BOTH = ("text", "image")


def suite(folder, name="mine", harmful=10, harmless=10, first=0, text=False, **more):
    """A suite of pictures, each of another color and topic."""
    folder = folder / name
    folder.mkdir()
    lines = []
    for number in range(harmful + harmless):
        color = first + number
        path = f"{number}.png"
        Image.new("RGB", (4, 4), (color % 256, color // 256, 9)).save(folder / path)
        shown = {} if text else {"image": path}
        lines.append(
            {
                "id": f"{name}-{number}", "modality": "text" if text else "image",
                "harmful": number < harmful, "split": "evaluation",
                "prompt": f"Question {number}?", **shown, **more,
            }
        )  # fmt: skip
    (folder / "suite.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(folder)


def test_half_of_the_topics_tune_and_half_measure(tmp_path):
    word = suite(tmp_path, harmful=12, harmless=16)
    tuning = tuning_set(word, BOTH)
    assert (tuning.name, tuning.sha256) == ("mine", open_suites([word]).sha256)
    counts = [tuning.counts(half)["image"] for half in (tuning.fit, tuning.held_out)]
    assert counts == [{"harmful": 6, "harmless": 8}] * 2
    assert all(r.request.media for r in tuning.fit)
    again, other = tuning_set(word, BOTH), tuning_set(word, BOTH, seed=1)
    topics = [[r.topic for r in t.fit] for t in (tuning, again, other)]
    assert topics[0] == topics[1] != topics[2]


def test_a_large_suite_gives_a_part(tmp_path):
    tuning = tuning_set(suite(tmp_path, harmful=MOST + 20, harmless=9), BOTH)
    counts = [tuning.counts(half)["image"] for half in (tuning.fit, tuning.held_out)]
    assert sum(c["harmful"] for c in counts) == MOST
    assert sum(c["harmless"] for c in counts) == 9


@pytest.mark.parametrize(
    ("given", "modalities", "said"),
    [
        ({"harmful": 7}, BOTH, "7 harmful image requests; give at least 8"),
        ({"harmless": 0}, BOTH, "no harmless image requests"),
        ({"text": True}, BOTH, "no request with image"),
        ({}, ("text",), "no request with what this model takes"),
        ({"advice": True}, BOTH, "no request with image"),
        ({"cluster": "one"}, BOTH, "too few topics"),
    ],
)
def test_too_little_is_one_line(tmp_path, given, modalities, said):
    with pytest.raises(ExportError, match=said) as caught:
        tuning_set(suite(tmp_path, **given), modalities)
    assert str(caught.value).startswith("--tune-on mine: ")
    assert "\n" not in str(caught.value)


def test_a_name_that_is_none_is_said_to_be_of_this_option():
    with pytest.raises(ExportError, match="--tune-on no-such-suite: neither a known suite"):
        tuning_set("no-such-suite", BOTH)


def test_what_is_evaluated_is_not_tuned_on(tmp_path):
    word = suite(tmp_path)
    alike = suite(tmp_path, "copy", harmful=9, harmless=9)  # other ids
    with pytest.raises(ExportError, match="18 of its 20 requests are those of the evaluation"):
        tuning_set(word, BOTH, evaluated=open_suites([alike]))
    apart = suite(tmp_path, "other", first=100)  # the same words about other pictures
    assert tuning_set(word, BOTH, evaluated=open_suites([apart]))


def test_only_a_method_with_a_gate_can_be_tuned():
    with pytest.raises(ValidationError, match="mars can be tuned, addition cannot"):
        Settings(model="x", method="addition", tune_on="mine")
    assert Settings(model="x", method="addition", tune_on=NO_TUNING).tunes is None
    assert Settings(model="x", tune_on="mine").tunes == "mine"


def test_a_comparison_tunes_the_methods_that_can_be(tmp_path):
    settings = ComparisonSettings(model="x", tune_on="mine")
    tuned = {m: _settings_for(settings, m, {}, tmp_path).tunes for m in ("mars", "addition")}
    assert tuned == {"mars": "mine", "addition": None}


@pytest.fixture
def tuned(tmp_path):
    """A steered directory that was tuned on a suite whose files are gone, but for its copy."""
    word, directory = suite(tmp_path), tmp_path / "steered"
    directory.mkdir()
    keep_tuning(directory, word)
    keep_suites(directory, ())
    opened = open_suites([word])
    counts = {"image": {"harmful": 5, "harmless": 5}}
    source = records.calibration().source.model_copy(
        update={
            "tuning": TuningSource(
                name=opened.name, sha256=opened.sha256, license="", fit=counts, held_out=counts
            )
        }
    )
    calibration = records.calibration().model_copy(update={"source": source})
    (directory / MANIFEST_NAME).write_text(records.manifest(calibration=calibration).text())
    shutil.rmtree(word)
    return directory, calibration


def test_a_steered_directory_keeps_what_it_was_tuned_on(tuned):
    directory, _ = tuned
    known = calibrated_on(directory).tuning
    assert known.name == "mine"
    word = find_tuning(known, [directory])
    assert open_suites([word]).sha256 == known.sha256
    settings = Settings(model="x")
    assert like_parent(settings, directory, None, None).tune_on == word
    other = settings.model_copy(update={"tune_on": NO_TUNING})
    assert like_parent(other, directory, None, None).tunes is None
    addition = Settings(model="x", method="addition")
    assert like_parent(addition, directory, None, None).tune_on is None


def test_without_it_a_recalibration_says_what_to_do(tuned):
    directory, _ = tuned
    shutil.rmtree(directory / "inputs")
    with pytest.raises(ExportError, match=r"tuned on mine, .* --base, .*--tune-on none"):
        like_parent(Settings(model="x"), directory, None, None)


def test_it_is_not_evaluated_on_that(tuned):
    directory, _ = tuned
    word = find_tuning(calibrated_on(directory).tuning, [directory])
    with pytest.raises(ExportError, match="was tuned on mine, so that its numbers"):
        _require_untuned(directory, open_suites([word]))
    with pytest.raises(ExportError, match="was tuned on mine"):
        _require_untuned(directory, open_suites([word, "typographic"]))
    _require_untuned(directory, open_suites(["typographic"]))


def test_drift_compares_only_what_was_tuned_alike(tuned):
    directory, _ = tuned
    word = find_tuning(calibrated_on(directory).tuning, [directory])
    tuning = tuning_set(word, BOTH)
    rules = {"calibrated_on": {"tuning": {"name": "mine", "sha256": tuning.sha256}}}
    _require_same_tuning(directory, rules, tuning)
    _require_same_tuning(directory, {}, None)
    with pytest.raises(ExportError, match="it was tuned on mine; tune alike"):
        _require_same_tuning(directory, rules, None)
    with pytest.raises(ExportError, match="it was not tuned on requests"):
        _require_same_tuning(directory, {}, tuning)
