"""`mars-export drift` compares on the prompts and with the seed of the calibration."""

import pytest

from mars_export.checkpoint.manifest import MANIFEST_NAME
from mars_export.inputs import prompts
from mars_export.integrations.finetune import drift
from mars_export.integrations.finetune.record import Drift
from support import records


@pytest.fixture
def steered(tmp_path):
    """A manifest of a calibration on the packaged prompts, with another seed than the default."""
    sets = prompts.packaged(5)
    source = records.calibration().source
    changed = {
        label: source.prompts[label].model_copy(update={"sha256": getattr(sets, label).sha256})
        for label in ("harmful", "harmless")
    }
    stimuli = {
        modality: made.model_copy(update={"kinds": ("color", "noise")})
        for modality, made in source.stimuli.items()
    }
    source = source.model_copy(update={"seed": 5, "prompts": changed, "stimuli": stimuli})
    calibration = records.calibration().model_copy(update={"source": source})
    folder = tmp_path / "steered"
    folder.mkdir()
    (folder / MANIFEST_NAME).write_text(records.manifest(calibration=calibration).text())
    return folder


@pytest.fixture
def calls(monkeypatch):
    """Keyword arguments of every comparison."""
    made = []

    def measure(directory, sets, **options):
        made.append({"sets": sets, **options})
        return Drift(
            name=directory.name, method="mars", layers=(4,), steering_sha256="0",
            prompts={}, differences=(),
        )  # fmt: skip

    monkeypatch.setattr(drift, "measure_drift", measure)
    return made


def test_seed_and_kinds_are_those_of_the_calibration(steered, calls, mars):
    result = mars("drift", steered, "--display", "plain")
    assert result.code == 0, result.errors
    assert calls[0]["seed"] == 5
    assert calls[0]["kinds"] == ("color", "noise")
    assert calls[0]["sets"] == prompts.packaged(5)
    assert not any("--seed" in line or "--neutral" in line for line in result.errors)


def test_another_seed_is_taken_and_named(steered, calls, mars):
    result = mars("drift", steered, "--seed", 0, "--display", "plain")
    assert calls[0]["seed"] == 0
    assert calls[0]["sets"] == prompts.packaged(0)
    lines = result.errors + result.out.splitlines()
    assert any("was calibrated with --seed 5: with 0 the prompts are split" in x for x in lines)


def test_other_kinds_are_taken_and_named(steered, calls, mars):
    result = mars("drift", steered, "--neutral", "color", "--display", "plain")
    assert (calls[0]["kinds"], calls[0]["seed"]) == (("color",), 5)
    lines = result.errors + result.out.splitlines()
    assert any("was calibrated with --neutral color,noise: what other" in line for line in lines)
