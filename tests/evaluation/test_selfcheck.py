import re

import pytest
from evaluation.fakes import PROBES, FakeLoaded, calibration, save_manifest

from mars_export.checkpoint.manifest import Derivation
from mars_export.evaluation.selfcheck import probe_request, self_check
from mars_export.inputs.stimuli import STIMULI
from mars_export.methods.base import StimulusSource


def check(tmp_path, broken="", **changes):
    loaded = FakeLoaded(broken=broken)
    found = self_check(loaded, save_manifest(tmp_path, **changes))
    assert loaded.model.steering.enabled
    assert "\n" not in found.detail
    return found


def with_gate(probe, gate):
    expected = probe.expected.model_copy(update={"gate": gate})
    return probe.model_copy(update={"expected": expected})


def coordinate(p):
    """Scales of a probe at coordinate p, where R is 40 and the gate opens over 30."""
    return {"gate_scale": p / 30, "strength_scale": 40 * 20 * p / 30}


def test_active(tmp_path):
    found = check(tmp_path)
    assert found.active
    assert found.detail.startswith("3 probes: one steered position each")


def test_an_opened_thought_stands_behind_what_is_steered(tmp_path):
    assert self_check(FakeLoaded(thought=2), save_manifest(tmp_path)).active


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("silent", r"at positions \[\] instead of 2 alone"),
        ("twice", r"at positions \[2, 2\] instead of 2 alone"),
        ("position", r"at positions \[1\] instead of 2 alone"),
        ("bare", "No assistant header of the chat template is in the text probe 'bad'"),
        ("modality", "takes the text probe 'bad' for a video request"),
        ("gate", "Gate 1.2 and strength 12 of the text probe 'bad' are not the calibrated 1"),
        ("nan", "Gate nan"),
        ("no effect", "A strength of 12 does not change the logits"),
        ("spills", "A strength of 0 changes the logits of the text probe 'good'"),
        ("drifts", "do not repeat"),
        ("raises", "could not be run: KeyError: 'no such layer'"),
    ],
)
def test_inactive(tmp_path, broken, message):
    found = check(tmp_path, broken)
    assert not found.active
    assert re.search(message, found.detail)


def test_rounding_of_the_coarser_dtype_is_allowed(tmp_path):
    near = [with_gate(probe, probe.expected.gate * 1.02) for probe in PROBES]
    assert not check(tmp_path, probes=near).active
    assert check(tmp_path, probes=near, dtype="bfloat16").active


@pytest.mark.parametrize(
    ("broken", "message"),
    [
        ("weak", "Strength 4.8 of the text probe 'bad' is less than half of the calibrated 12"),
        ("inert", "Strength 0 of the text probe 'bad' is less than half of the calibrated 12"),
    ],
)
def test_a_coarse_dtype_does_not_hide_a_push_that_is_missing(tmp_path, broken, message):
    found = check(tmp_path, broken, dtype="bfloat16")
    assert not found.active
    assert message in found.detail


def test_large_coordinates_alone_do_not_fail_a_coarse_dtype(tmp_path):
    far = [probe.model_copy(update=coordinate(412.0)) for probe in PROBES]
    assert check(tmp_path, probes=far, dtype="bfloat16").active
    found = check(tmp_path, "inert", probes=far, dtype="bfloat16")
    assert not found.active
    assert "Strength 0 of the text probe 'bad'" in found.detail


def test_the_gate_may_be_off_by_a_quarter_at_most(tmp_path):
    near = [probe.model_copy(update=coordinate(140.0)) for probe in PROBES]
    off = [with_gate(p, p.expected.gate and p.expected.gate + 0.26) for p in near]
    assert check(tmp_path, probes=near, dtype="bfloat16").active
    assert "are not the calibrated 1.26" in check(tmp_path, probes=off, dtype="bfloat16").detail


def test_other_stimuli_than_the_calibrated_ones(tmp_path):
    made = {"kinds": ("color",), "seed": 0, "count": 2, "width": 8, "height": 8, "frames": 1}
    other = StimulusSource(generator="photos", **made)
    found = check(tmp_path, stimuli={"image": other})
    assert not found.active
    assert "'photos' cannot be made again" in found.detail


def test_no_probe_that_is_pushed(tmp_path):
    found = check(tmp_path, probes=PROBES[2:])
    assert not found.active
    assert "no probe with a positive strength" in found.detail


def test_a_model_without_steering(tmp_path):
    loaded = FakeLoaded(broken="silent")
    del loaded.model.steering
    assert not self_check(loaded, save_manifest(tmp_path)).active


def test_a_calibration_from_before_training_is_not_compared_by_its_numbers(tmp_path):
    manifest = save_manifest(tmp_path)
    origin = Derivation(name="tuned", steering_sha256="0" * 64, calibrated=False)
    base = manifest.base.model_copy(update={"derived_from": origin})
    kept = manifest.model_copy(update={"base": base})
    for broken in ("", "gate"):
        found = self_check(FakeLoaded(broken=broken), kept)
        assert found.active, found.detail
        assert "the calibration is from before training" in found.detail
    for broken in ("silent", "no effect", "spills", "drifts", "modality"):
        assert not self_check(FakeLoaded(broken=broken), kept).active


def test_a_sound_is_made_again_as_long_as_it_was(tmp_path):
    made = {"generator": STIMULI["audio"].generator, "kinds": ("tones",), "seed": 5, "count": 2}
    sounds = StimulusSource(**made, width=0, height=0, frames=1, seconds=0.7)
    source = calibration(stimuli={"audio": sounds}).source
    probe = PROBES[0].model_copy(update={"modality": "audio", "stimuli": (1,)})
    (heard,) = probe_request(source, probe).media
    same = STIMULI["audio"].draw(1, 5, kinds=("tones",), seconds=0.7)
    assert heard.data.seconds == 0.7
    assert heard.data.samples.tobytes() == same.data.samples.tobytes()
