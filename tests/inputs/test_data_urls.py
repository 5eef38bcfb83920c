"""Media survive the way into a data URL and back unchanged."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.inputs.data_urls import (
    clip_url,
    frames_of,
    frames_url,
    opened,
    picture_url,
    sound_url,
)
from mars_export.inputs.media import open_picture
from mars_export.inputs.sounds import Sound, open_sound


def noise(width, height, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    return Image.fromarray(pixels)


@given(st.integers(1, 9), st.integers(1, 9))
@settings(max_examples=10)
def test_pictures(width, height):
    picture = noise(width, height)
    assert open_picture(opened(picture_url(picture)), "a").tobytes() == picture.tobytes()
    head, *frames = frames_url([picture, picture]).split(",")
    assert (head, frames[0]) == ("data:video/jpeg;base64", frames[1])


@pytest.mark.parametrize(("size", "count"), [((64, 48), 8), ((30, 18), 1)])
def test_clips_are_the_same_frames(size, count):
    pytest.importorskip("av")
    frames = [noise(*size, seed) for seed in range(count)]
    told = frames_of(opened(clip_url(frames)))
    assert [frame.tobytes() for frame in told] == [frame.tobytes() for frame in frames]
    with pytest.raises(ExportError, match="a clip cannot be decoded"):
        frames_of(b"no video")


def test_sounds():
    pytest.importorskip("soundfile")
    samples = np.sin(np.arange(4_000) / 9).astype(np.float32) / 3
    told = open_sound(opened(sound_url(Sound(samples, 16_000))), "a")
    assert told.rate == 16_000
    np.testing.assert_array_equal(told.samples, samples)


@pytest.mark.parametrize(
    "url", ["http://a/b.png", "data:image/png,abc", "data:image/png;base64", ""]
)
def test_addresses_are_not_opened(url):
    with pytest.raises(ExportError, match="is no data URL"):
        opened(url)
