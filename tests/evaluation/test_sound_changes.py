"""Changes of sounds: what stays, what changes, and that any sound can be put through them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_export.evaluation import sound_changes
from mars_export.inputs.sounds import Sound

RATE = 16000
VOICES = [Sound(np.sin(np.arange(900) * turn).astype("float32"), 8000) for turn in (0.1, 0.3)]
CHANGES = {
    "faster": lambda sound: sound_changes.stretched(sound, 0.7),
    "slower": lambda sound: sound_changes.stretched(sound, 1.4),
    "higher": lambda sound: sound_changes.pitched(sound, 4),
    "lower": lambda sound: sound_changes.pitched(sound, -4),
    "noisy": lambda sound: sound_changes.noisy(sound, "seed", 10),
    "among": lambda sound: sound_changes.among(sound, VOICES, "seed", 5),
    "telephone": sound_changes.over_telephone,
    "echo": sound_changes.echoed,
    "reversed": sound_changes.reversed_parts,
    "whispered": lambda sound: sound_changes.whispered(sound, "seed"),
    "joined": lambda sound: sound_changes.joined([VOICES[0], sound], sound.rate, 0.1),
}
FACTORS = {"faster": 0.7, "slower": 1.4}


def tone(hertz, seconds=1.0, rate=RATE, level=0.3):
    times = np.arange(round(seconds * rate)) / rate
    return Sound((level * np.sin(2 * np.pi * hertz * times)).astype("float32"), rate)


def peak(sound):
    spectrum = abs(np.fft.rfft(sound.samples * np.hanning(len(sound.samples))))
    return spectrum.argmax() * sound.rate / len(sound.samples)


def level(sound):
    return np.sqrt(np.mean(sound.samples.astype(float) ** 2))


@settings(max_examples=15, deadline=None)
@given(
    st.sampled_from(sorted(CHANGES)),
    st.sampled_from([4000, 16000, 44100]),
    st.integers(1, 9000),
    st.sampled_from([0.0, 1e-4, 1.0]),
)
def test_any_sound_can_be_changed(name, rate, length, loud):
    samples = np.random.default_rng(length).uniform(-loud, loud, length).astype("float32")
    before = samples.copy()
    changed = CHANGES[name](Sound(samples, rate))
    assert (samples == before).all()
    assert (changed.rate, changed.samples.dtype, changed.samples.ndim) == (rate, "float32", 1)
    assert np.isfinite(changed.samples).all()
    assert abs(changed.samples).max() <= 1
    if name not in ("echo", "joined"):
        assert len(changed.samples) == max(1, round(length * FACTORS.get(name, 1)))
    assert (CHANGES[name](Sound(samples, rate)).samples == changed.samples).all(), "seeded"


@pytest.mark.parametrize("factor", [0.6, 1.5])
def test_speed_keeps_the_pitch(factor):
    changed = sound_changes.stretched(tone(440), factor)
    assert changed.seconds == pytest.approx(factor)
    assert peak(changed) == pytest.approx(440, abs=4)
    assert level(changed) == pytest.approx(level(tone(440)), rel=0.1)


@pytest.mark.parametrize("semitones", [-12, -4, 4, 12])
def test_pitch_keeps_the_speed(semitones):
    changed = sound_changes.pitched(tone(500), semitones)
    assert changed.seconds == 1
    assert peak(changed) == pytest.approx(500 * 2 ** (semitones / 12), rel=0.02)


def test_what_is_added_is_so_much_weaker():
    own = tone(440)
    for changed in (sound_changes.noisy(own, "a", 10), sound_changes.among(own, VOICES, "a", 10)):
        added = Sound(changed.samples - own.samples, RATE)
        assert 20 * np.log10(level(own) / level(added)) == pytest.approx(10, abs=0.1)
    other = sound_changes.noisy(own, "b", 10)
    assert (other.samples != sound_changes.noisy(own, "a", 10).samples).any()


def test_a_telephone_passes_its_band_alone():
    for hertz, passes in ((100, False), (1000, True), (6000, False)):
        kept = level(sound_changes.over_telephone(tone(hertz))) / level(tone(hertz))
        assert (kept > 0.8) if passes else (kept < 0.1), hertz


def test_echoes_follow():
    click = Sound(np.eye(1, 4000, dtype="float32")[0], RATE)
    heard = sound_changes.echoed(click).samples
    assert heard.nonzero()[0].tolist() == [0, 1920, 3840]
    assert heard[[0, 1920, 3840]] == pytest.approx([1, 0.5, 0.25])


def test_parts_are_reversed_and_stay_in_their_places():
    ramp = Sound(np.linspace(0, 1, 2000, dtype="float32"), RATE)
    heard = sound_changes.reversed_parts(ramp).samples
    assert (heard[:960] == ramp.samples[:960][::-1]).all()
    assert sorted(heard) == sorted(ramp.samples)


def test_a_whisper_has_no_pitch():
    def share(sound):  # of the power, at harmonics of 120 Hz
        power = abs(np.fft.rfft(sound.samples)) ** 2
        at = [round(120 * k * sound.seconds) for k in range(1, 20)]
        return sum(power[i - 2 : i + 3].sum() for i in at) / power.sum()

    voice = Sound(sum(tone(120 * k, level=0.04).samples for k in range(1, 20)), RATE)
    whisper = sound_changes.whispered(voice, "a")
    assert share(voice) > 0.95
    assert share(whisper) < 0.3
    assert level(whisper) == pytest.approx(level(voice), rel=0.01)


def test_sounds_one_after_the_other():
    whole = sound_changes.joined([tone(300, rate=8000), tone(600)], RATE, 0.5)
    assert whole.seconds == pytest.approx(2.5, abs=0.01)
    assert peak(Sound(whole.samples[:RATE], RATE)) == pytest.approx(300, abs=2)
    assert peak(Sound(whole.samples[-RATE:], RATE)) == pytest.approx(600, abs=2)
    assert not whole.samples[RATE + 100 : RATE + 7900].any()


def test_what_is_made_from_nothing():
    assert not sound_changes.silence(0.5).samples.any()
    assert sound_changes.silence(0.5).seconds == 0.5
    assert level(sound_changes.noise(1, "a", -40)) == pytest.approx(0.01, rel=0.05)
