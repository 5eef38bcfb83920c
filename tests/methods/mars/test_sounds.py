"""A calibration beside neutral sounds: their kinds and lengths, and harmless speech as a check."""

from dataclasses import replace

import numpy as np
import pytest

from mars_export.calibration.conditions import SETTINGS
from mars_export.inputs import tones
from mars_export.inputs.sounds import Sound
from mars_export.methods.calibrate import calibrate
from mars_export.methods.mars.card import section
from mars_export.methods.mars.checks import findings
from mars_export.methods.mars.record import MarsOptions
from support import planted

SPEECH = "benign speech"
MEASUREMENT = replace(
    planted.MEASUREMENT, condition_requests=12, seconds=0.5, kinds=("silence", "pink-noise")
)


def calibrated(alarm=0.0):
    return calibrate(
        planted.HearingModel(alarm),
        planted.sound_processor(),
        prompts=planted.prompt_sets(),
        modalities=("text", "audio"),
        options=MarsOptions(),
        measurement=MEASUREMENT,
    )


def shouted(source, seconds):
    """Louder than any neutral sound."""
    wave = np.sign(np.sin(np.arange(round(seconds * tones.RATE)) * source.uniform(0.05, 0.2)))
    return Sound(wave.astype("float32"), tones.RATE)


@pytest.fixture(scope="module")
def found():
    return calibrated()


def conditions(artefact):
    return {c.name: c for c in artefact.record.record.conditions if c.modality == "audio"}


def test_the_shift_of_sounds_is_measured_at_several_lengths(found):
    shift = found.record.record.shift["audio"]
    assert shift.at() == pytest.approx(1, abs=0.1)
    assert shift.tokens == [0, 6, 12, 24, 25, 48], "0.25, 0.5, two of 0.5, 1 s, four of 0.5 s"
    assert shift.plain == 12


def test_the_record_says_what_was_played(found):
    (stimuli,) = found.record.source.stimuli.values()
    assert stimuli.kinds == ("silence", "pink-noise")
    assert (stimuli.seconds, stimuli.width, stimuli.frames) == (0.5, 0, 1)
    assert stimuli.generator.startswith("seeded sounds")
    probes = [p for p in found.record.probes if p.modality == "audio"]
    assert {p.expected.active for p in probes} == {True, False}


def test_kinds_and_lengths_are_conditions_and_harmless_speech_is_one(found):
    seen = conditions(found)
    assert {"plain", "silence", "pink-noise", "two stimuli", SPEECH} <= set(seen)
    assert abs(seen[SPEECH].moved) < 0.1
    assert seen[SPEECH].treatment in ("none", "origin")
    (line,) = (c for c in found.record.record.checks if c.name == SPEECH)
    assert (line.modality, line.open) == ("audio", 0)
    assert not [s for s in findings(found.record.record) if SPEECH in s]
    assert f"audio, {SPEECH}" in section(found.record).details


def test_speech_that_lies_among_harmful_text_is_a_finding(monkeypatch):
    monkeypatch.setitem(tones.KINDS, tones.SPEECH, shouted)
    artefact = calibrated(alarm=3.5)
    speech = conditions(artefact)[SPEECH]
    assert speech.moved == pytest.approx(3.5 / 4, abs=0.1)
    assert speech.treatment in ("left out", "refused")
    said = [s for s in findings(artefact.record.record) if SPEECH in s]
    assert said
    assert all("audios" not in s for s in said)


def test_pictures_and_text_know_no_speech():
    (setting,) = (s for s in SETTINGS if s.kinds)
    assert [m for m in ("text", "image", "video", "audio") if setting.fits(m)] == ["audio"]
