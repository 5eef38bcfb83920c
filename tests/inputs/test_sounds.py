"""Sound files: any rate and number of channels becomes one finite channel, or one clear line."""

import hashlib
import io
import json
import random
import re
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import soundfile
import torch
import transformers
from hypothesis import given, settings
from hypothesis import strategies as st

from mars_export.calibration.data import CalibrationData
from mars_export.common.errors import ExportError
from mars_export.inputs import sounds
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.sounds import Sound, longest, open_sound
from support import heard, listeners, planted

FORMATS = {
    "wav": ("WAV", "PCM_16"),
    "float wav": ("WAV", "FLOAT"),
    "flac": ("FLAC", "PCM_16"),
    "mp3": ("MP3", "MPEG_LAYER_III"),
    "ogg": ("OGG", "VORBIS"),
    "opus": ("OGG", "OPUS"),
}
RATES = (8_000, 16_000, 24_000, 48_000)
"""That every format takes."""


def written(samples, rate=16_000, name="wav"):
    file = io.BytesIO()
    kind, subtype = FORMATS[name]
    soundfile.write(file, samples, rate, format=kind, subtype=subtype)
    return file.getvalue()


def tone(seconds, rate=16_000, channels=1, peak=0.5):
    wave = peak * np.sin(np.arange(round(seconds * rate)) * 440 * 2 * np.pi / rate)
    return np.stack([wave] * channels, 1)


@settings(deadline=None, max_examples=40)
@given(
    st.sampled_from(sorted(FORMATS)),
    st.sampled_from(RATES),
    st.integers(1, 2),
    st.floats(0.2, 2),
    st.floats(0, 1),
    st.sampled_from(RATES),
)
def test_any_file_becomes_one_finite_channel(name, rate, channels, seconds, peak, wanted):
    opened = open_sound(written(tone(seconds, rate, channels, peak), rate, name), "x")
    assert opened.rate == rate
    assert opened.seconds == pytest.approx(seconds, abs=0.1 if name == "mp3" else 1e-3)
    brought = opened.at(wanted)
    assert brought.rate == wanted
    assert brought.seconds == pytest.approx(opened.seconds, abs=1e-3)
    for sound in (opened, brought):
        assert (sound.samples.dtype, sound.samples.ndim) == ("float32", 1)
        assert np.isfinite(sound.samples).all()
    assert np.abs(opened.samples).max() <= 1
    for sound in (opened, brought):
        loudness = float(np.sqrt((sound.samples**2).mean()))
        assert loudness == pytest.approx(peak / np.sqrt(2), abs=0.05)


def test_channels_become_their_mean(tmp_path):
    path = tmp_path / "two.wav"
    path.write_bytes(written(np.stack([tone(1)[:, 0], np.zeros(16_000)], 1)))
    assert open_sound(path, "x").samples == pytest.approx(0.5 * tone(1)[:, 0], abs=1e-3)
    assert not open_sound(written(np.zeros(16_000)), "x").samples.any()


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"", "none of wav, flac"),
        (b"RIFF and more that is no sound", "none of wav, flac"),
        (written(tone(0)), "no samples; the least is 0.1 seconds"),
        (written(tone(0.05)), "0.05 seconds; the least is 0.1 seconds"),
        (written(tone(301, 4_000), 4_000), "longer than 300 seconds"),
        (written(tone(1, 1_000), 1_000), "1000 samples a second, not 4000 to 192000"),
        (written(tone(1, 400_000), 400_000), "400000 samples a second, not"),
        (written(np.full(9_999, np.nan), name="float wav"), "values that are not finite"),
        (written(32_767 * tone(1), name="float wav"), "beyond the full scale of 1"),
        (written(tone(2), name="flac")[:9_000], "lost sync"),
        (written(tone(2))[:-2_000], "cut off: it ends before its header says"),
        (written(tone(20), name="ogg")[:10_000], "cut off"),
        (written(tone(4), name="mp3")[:4_000], "cut off"),
    ],
)
def test_what_is_no_sound_is_one_line(data, said):
    with pytest.raises(ExportError, match=rf"^row 3, a\.wav: not a readable sound \(.*{said}") as e:
        open_sound(data, "row 3, a.wav")
    assert "\n" not in str(e.value)


@settings(deadline=None, max_examples=100)
@given(st.sampled_from(sorted(FORMATS)), st.integers(0), st.sampled_from((1, 2, 9)))
def test_a_damaged_file_is_a_sound_or_one_line(name, seed, times):
    chance, data = random.Random(seed), bytearray(written(tone(0.5, channels=2), name=name))
    for _ in range(times):
        place = chance.randrange(min(len(data), chance.choice((64, len(data)))))
        data[place : place + chance.choice((0, 1, 4))] = chance.randbytes(chance.choice((0, 1, 4)))
    data = bytes(data[: chance.choice((len(data), chance.randrange(len(data))))])
    said = ""
    try:
        sound = open_sound(data, "a.wav")
    except ExportError as error:
        said = str(error)
    if said:
        assert re.fullmatch(r"a\.wav: not a readable sound \(.+\); replace it", said)
    else:
        assert np.isfinite(sound.samples).all()
        assert 0.1 <= sound.seconds <= 301


@pytest.mark.parametrize("size", [0xFFFF_FFFF, 0xFFFF_FFF0, 0x7FFF_FFFF])
def test_a_stream_whose_length_was_not_known_is_a_sound(size):
    data = bytearray(written(tone(1)))
    at = data.index(b"data") + 4
    data[at : at + 4] = size.to_bytes(4, "little")
    assert open_sound(bytes(data), "a.wav").seconds == 1


def test_a_path_is_not_repeated(tmp_path):
    with pytest.raises(ExportError, match=r"^a\.wav: not a readable sound \(No such file or dir"):
        open_sound(tmp_path / "a.wav", "a.wav")


def test_full_scale_is_sound():
    """Lossy formats overshoot it when they are decoded."""
    for name in FORMATS:
        assert np.abs(open_sound(written(np.sign(tone(1)), name=name), "x").samples).max() <= 1


def test_packages_that_are_absent_are_named(monkeypatch, tmp_path):
    for package in ("soundfile", "soxr"):
        monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ExportError, match=r"^x: needs soundfile; run `pip install .*\[audio\]"):
        open_sound(b"", "x")
    with pytest.raises(ExportError, match=r"by soxr; run `pip install .*\[audio\]"):
        Sound(np.zeros(99, "float32"), 99).at(16_000)
    monkeypatch.setattr(sounds, "find_spec", lambda name: None)
    with pytest.raises(ExportError, match="takes audio, which needs soundfile and soxr; run `pip"):
        CalibrationData(None, None, None, ("text", "audio"))
    CalibrationData(None, None, None, ("text", "image"))


def frames(processor, seconds):
    """Of the features of a sound that count."""
    options = {"sampling_rate": 16_000, "return_attention_mask": True}
    made = processor.feature_extractor([heard.tone(seconds).data.samples], **options)
    (mask,) = made.get("input_features_mask", made.get("attention_mask"))
    return int(mask.sum())


@pytest.mark.parametrize("model_type", listeners.FAMILIES)
def test_a_sound_that_would_be_cut_is_refused(model_type):
    processor = listeners.processor(model_type)
    most = longest(processor)
    assert most == (listeners.CHUNK if type(processor) is transformers.Qwen2_5OmniProcessor else 30)
    assert frames(processor, most - 0.1) < frames(processor, most) == frames(processor, most + 1)
    name, at_most = type(processor).__name__, collate(processor, [asked(most)])
    assert tokens(processor, at_most) == [25 * most]
    with pytest.raises(
        ExportError, match=rf"{most + 0.1} s is longer than the {most:g} s that {name}"
    ):
        collate(processor, [asked(most + 0.1)])
    with pytest.raises(ExportError, match=r"0\.05 s is shorter than 0\.1 s"):
        collate(processor, [asked(0.05)])


def asked(*seconds, rate=16_000):
    return Request("show me", tuple(heard.tone(one, rate) for one in seconds))


def tokens(processor, batch):
    """Of sounds, in each row."""
    placeholder = processor.tokenizer.convert_tokens_to_ids(processor.audio_token)
    return (batch["input_ids"] == placeholder).sum(1).tolist()


HEARS = {
    **{name: partial(listeners.processor, name) for name in listeners.FAMILIES},
    "qwen2_audio": planted.sound_processor,
}


@pytest.mark.parametrize("name", HEARS)
def test_sounds_of_any_rate_are_brought_to_that_of_the_processor(name):
    processor = HEARS[name]()
    requests = [asked(1, rate=44_100), asked(0.5, 0.5, rate=8_000), asked(2)]
    batch = collate(processor, requests[:1] + requests[2:])
    assert tokens(processor, batch) == [25, 50]
    half = 13 if name == "gemma4" else 12
    assert tokens(processor, collate(processor, requests[1:2])) == [2 * half]


def test_padding_to_the_longest_sound_changes_no_feature(monkeypatch):
    """Qwen2.5-Omni selects the frames that count by their mask."""
    processor = listeners.processor(heard.MODEL_TYPE)
    short = collate(processor, [asked(1), asked(1.5)])
    monkeypatch.setattr(sounds, "_UNPADDED", ())
    long = collate(processor, [asked(1), asked(1.5)])
    lengths = [batch["input_features"].shape[-1] for batch in (short, long)]
    assert lengths == [152, 100 * listeners.CHUNK]
    for name in ("input_ids", "attention_mask"):
        assert torch.equal(short[name], long[name])
    features = [b["input_features"].movedim(1, 2)[b["feature_attention_mask"].bool()]
                for b in (short, long)]  # fmt: skip
    assert torch.equal(*features)


def test_a_processor_that_cuts_nothing_has_no_limit():
    assert longest(planted.processor()) is None
    windows = listeners.processor(heard.MODEL_TYPE)
    windows.max_audio_len = 600
    assert longest(windows) == 600
    assert transformers.VoxtralProcessor.audio_kwargs["truncation"] is False
    assert longest(object.__new__(transformers.VoxtralProcessor)) is None


def test_the_packaged_speech_is_small_and_as_stated():
    folder = Path(sounds.__file__).parent / "data" / "speech"
    stated = json.loads((folder / "provenance.json").read_text("utf-8"))["clips"]
    found = {path.name: path.read_bytes() for path in folder.glob("*.flac")}
    assert {n: hashlib.sha256(data).hexdigest() for n, data in found.items()} == {
        name: clip["sha256"] for name, clip in stated.items()
    }
    assert sum(map(len, found.values())) < 400_000
    assert {open_sound(data, name).rate for name, data in found.items()} == {16_000}
