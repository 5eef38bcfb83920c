"""A steered directory keeps its prompts and suites, so that later commands need nothing else."""

import json
import shutil

import pytest
from PIL import Image

from mars_export.checkpoint.manifest import MANIFEST_NAME
from mars_export.checkpoint.seal import INPUTS, write_seal
from mars_export.common.errors import ExportError
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.inputs import prompts
from mars_export.pipeline.kept import (
    CalibratedOn,
    calibrated_on,
    find_sets,
    keep_prompts,
    keep_suites,
    kept_suites,
)
from mars_export.pipeline.settings import Settings
from mars_export.pipeline.trained import calibration_sets
from support import records


def own_prompts(folder, seed=0):
    files = []
    for label in ("harmful", "harmless"):
        files.append(folder / f"{label} of mine.txt")
        files[-1].write_text("\n".join(f"{label} number {i}" for i in range(30)) + "\n")
    return prompts.from_files(*files, seed)


def known(sets, seed=0):
    files = {
        label: {"name": getattr(sets, label).name, "sha256": getattr(sets, label).sha256}
        for label in ("harmful", "harmless")
    }
    return {**files, "seed": seed, "neutral": ["color"]}


def steered(folder, sets):
    folder.mkdir(exist_ok=True)
    config = {"model_type": "x", "steering": {"calibrated_on": known(sets)}}
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def own_suite(folder):
    folder.mkdir()
    Image.new("RGB", (8, 8), "navy").save(folder / "a.png")
    (folder / "clip").mkdir()
    for number in range(12):
        Image.new("RGB", (8, 8), (number, 0, 0)).save(folder / "clip" / f"{number}.png")
    lines = [
        {"id": "q1", "modality": "text", "image": None, "video": None},
        {"id": "q2", "modality": "image", "image": "a.png", "video": None},
        {"id": "q3", "modality": "video", "video": "clip"},
    ]
    common = {"harmful": True, "split": "evaluation", "prompt": "How?"}
    path = folder / "mine.jsonl"
    path.write_text("".join(json.dumps({**line, **common}) + "\n" for line in lines))
    return path


def test_prompts_are_at_hand_when_their_files_are_gone(tmp_path):
    sets = own_prompts(tmp_path)
    directory = steered(tmp_path / "steered", sets)
    keep_prompts(directory, sets, 0)
    record = calibrated_on(directory)
    assert record == CalibratedOn.model_validate(known(sets))
    assert find_sets(record, [directory], 0) == sets
    again = find_sets(record, [directory], 1)
    assert set(again.harmful.direction) != set(sets.harmful.direction)
    assert sorted(again.prompts) == sorted(sets.prompts)


def test_packaged_prompts_stand_for_no_others(tmp_path):
    sets = own_prompts(tmp_path)
    record = CalibratedOn.model_validate(known(sets))
    assert find_sets(record, [tmp_path], 0) is None
    packaged = prompts.packaged()
    assert find_sets(CalibratedOn.model_validate(known(packaged)), [tmp_path], 0) == packaged


def test_a_recalibration_takes_no_other_prompts_in_silence(tmp_path):
    sets = own_prompts(tmp_path)
    tuned, settings = steered(tmp_path / "tuned", sets), Settings(model="x")
    with pytest.raises(ExportError, match=r"harmless of mine\.txt, which are not at hand"):
        calibration_sets(settings, tuned, None)
    before = tmp_path / "before"
    keep_prompts(before, sets, 0)
    assert calibration_sets(settings, tuned, before) == sets
    (tuned / "config.json").unlink()
    with pytest.raises(ExportError, match="nothing says what it was calibrated on"):
        calibration_sets(settings, tuned, None)


def test_without_rules_the_manifest_says_it(tmp_path):
    assert calibrated_on(tmp_path) is None
    (tmp_path / MANIFEST_NAME).write_text(records.manifest().text())
    source = records.calibration().source
    assert calibrated_on(tmp_path).harmful.sha256 == source.prompts["harmful"].sha256


@pytest.mark.parametrize("form", ["{0}", "other={0}", "{0.parent}"])
def test_a_suite_of_ones_own_is_copied_and_is_the_same(tmp_path, form):
    path = own_suite(tmp_path / "my suite")
    if form == "{0.parent}":
        path = path.rename(path.with_name("suite.jsonl"))
    directory = tmp_path / "steered"
    before = open_suites([form.format(path)])
    keep_suites(directory, [form.format(path)])
    shutil.rmtree(path.parent)
    moved = directory.rename(tmp_path / "elsewhere")
    after = open_suites(kept_suites(moved))
    assert (after.name, after.sha256) == (before.name, before.sha256)
    assert after.request(after.samples[1]).media
    assert len(after.request(after.samples[2]).media[0].data) == 8


def test_names_are_kept_as_they_are_and_none_means_the_default(tmp_path):
    keep_suites(tmp_path, ["xstest", "typographic"])
    assert kept_suites(tmp_path) == ("xstest", "typographic")
    keep_suites(tmp_path, ())
    assert kept_suites(tmp_path) == ("typographic",)
    assert kept_suites(tmp_path / "nowhere") == ()


def test_what_is_kept_stays_at_home_and_breaks_no_seal(tmp_path):
    (tmp_path / MANIFEST_NAME).write_text(records.manifest().text())
    seal = write_seal(tmp_path).read_bytes()
    keep_prompts(tmp_path, prompts.packaged(), 0)
    assert write_seal(tmp_path).read_bytes() == seal
    assert (tmp_path / INPUTS).is_dir()
