"""`mars-export drift` compares on the prompts and with the seed of the calibration."""

import json

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
            prompts={}, differences=(), same_prompts=True,
        )  # fmt: skip

    monkeypatch.setattr(drift, "measure_drift", measure)
    return made


def test_seed_and_kinds_are_those_of_the_calibration(steered, calls, mars):
    result = mars("drift", steered, "--display", "plain")
    assert result.code == 0, result.errors
    assert calls[0]["seed"] == 5
    assert calls[0]["kinds"] == ("color", "noise")
    assert calls[0]["sets"] == prompts.packaged(5)
    result = mars("drift", steered, "--display", "plain", "--json")
    assert json.loads(result.out)["verdict"] == "holds"
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


@pytest.mark.parametrize("own", [True, False])
def test_on_other_prompts_it_cannot_tell(steered, calls, mars, tmp_path, own):
    files = []
    for label in ("harmful", "harmless"):
        (tmp_path / label).mkdir()
        files += [f"--{label}", tmp_path / label / "mine.txt"]
        files[-1].write_text("".join(f"{label} {i}\n" for i in range(30)))
    if not own:  # those of the calibration are not at hand, and the packaged ones are others
        manifest = (steered / MANIFEST_NAME).read_text()
        digest = prompts.packaged(5).harmful.sha256
        (steered / MANIFEST_NAME).write_text(manifest.replace(digest, "0" * 64))
    result = mars("drift", steered, *(files if own else ()), "--display", "plain")
    assert (result.code, calls) == (2, [])
    assert "cannot tell whether the calibration of" in result.errors[-1]
    assert ("those given are others" if own else "are not at hand") in result.errors[-1]


@pytest.mark.parametrize("same", [True, None])
def test_a_verdict_is_lost_only_on_the_prompts_of_the_calibration(same):
    lost = Drift(
        name="x", method="mars", layers=(4,), steering_sha256="0", prompts={}, differences=(),
        obstacle="no direction", same_prompts=same,
    )  # fmt: skip
    assert lost.verdict == ("lost" if same else "cannot tell")
    assert lost.model_copy(update={"obstacle": None}).verdict == "holds"
