"""What was trained and saved becomes a steered directory again, with what the one before kept."""

import json
import shutil

import pytest
import torch
import transformers

from mars_export import ExportError, verify
from mars_export.checkpoint.derived import native_view
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.writer import write_checkpoint
from mars_export.evaluation.suites.catalog import DEFAULT
from mars_export.pipeline.kept import keep_suites
from mars_export.pipeline.settings import Settings
from mars_export.pipeline.trained import complete, derivation, inherited, like_parent, parent_of
from support import tiny


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A steered directory, and its weights after a step of training."""
    folder = tmp_path_factory.mktemp("trained")
    _, steered = tiny.export("gemma3", folder)
    model = transformers.AutoModelForImageTextToText.from_pretrained(
        steered, trust_remote_code=True
    )
    with torch.no_grad():
        next(model.parameters()).mul_(1.01)
    model.save_pretrained(folder / "tuned")
    return steered, folder / "tuned"


def test_it_is_verified_as_what_it_is(made, tmp_path):
    steered, tuned = made
    parent = parent_of(tuned, steered)
    origin = derivation(tuned, steered, parent, calibrated=False)
    assert (origin.trained, origin.parent, origin.base) == (True, "steered", parent.base.name)
    native_view(tuned, tmp_path / "tuned")
    source = parent.base.model_copy(update={"repo": None, "name": "tuned"})
    source = inherited(source, parent).model_copy(update={"derived_from": origin})
    calibration = steered / "calibration"
    write_checkpoint(
        tmp_path / "tuned", tmp_path / "out", source=source, calibration_dir=calibration
    )
    found = verify(tmp_path / "out")
    assert found.passed, found
    manifest = Manifest.read(tmp_path / "out")
    assert manifest.steering_sha256 == parent.steering_sha256
    assert manifest.base.derived_from == origin


def test_a_copy_that_nobody_trained_is_called_that(made):
    steered, _ = made
    assert not derivation(steered, None, Manifest.read(steered), calibrated=True).trained


def test_a_chain_names_the_model_that_was_steered_first(made):
    steered, tuned = made
    parent = Manifest.read(steered)
    first = derivation(tuned, steered, parent, calibrated=False)
    base = parent.base.model_copy(update={"repo": None, "name": "tuned", "derived_from": first})
    adopted = parent.model_copy(update={"base": base})
    second = derivation(tuned, None, adopted, calibrated=True)
    assert (second.base, second.revision) == (parent.base.name, parent.base.revision)
    assert second.trained


def test_saved_over_the_steered_directory_it_counts_as_trained(made, tmp_path):
    steered, tuned = made
    both = shutil.copytree(steered, tmp_path / "both")
    shutil.copytree(tuned, both, dirs_exist_ok=True)
    assert derivation(both, None, Manifest.read(both), calibrated=True).trained


def test_terms_and_suites_come_from_before(made, tmp_path):
    steered, tuned = made
    before = shutil.copytree(steered, tmp_path / "before")
    keep_suites(before, ())
    parent = Manifest.read(before)
    settings = like_parent(Settings(model=str(tuned)), tuned, before, parent)
    assert (settings.suite, settings.license) == ((DEFAULT,), parent.base.license)
    gated = parent.model_copy(update={"base": parent.base.model_copy(update={"gated": "auto"})})
    assert inherited(parent.base, gated).gated == "auto"
    assert inherited(parent.base, None) == parent.base


def test_legal_files_come_along_and_the_processor_where_none_was_saved(tmp_path):
    base, view = tmp_path / "base", tmp_path / "view"
    for folder in (base, view):
        folder.mkdir()
    for name in ("LICENSE", "tokenizer_config.json", "chat_template.jinja"):
        (base / name).write_text(name)
    (view / "tokenizer_config.json").write_text("own")
    complete(view, base)
    assert {p.name for p in view.iterdir()} == {"LICENSE", "tokenizer_config.json"}
    assert (view / "tokenizer_config.json").read_text() == "own"
    (view / "tokenizer_config.json").unlink()
    complete(view, base)
    assert {p.name for p in view.iterdir()} == {p.name for p in base.iterdir()}


def test_another_steering_is_no_parent(made, tmp_path):
    steered, tuned = made
    other = shutil.copytree(tuned, tmp_path / "other")
    config = json.loads((other / "config.json").read_text())
    config["steering"]["sha256"] = "0" * 64
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ExportError, match="not the exported ones"):
        parent_of(other, steered)
    assert parent_of(tuned, None) is None
