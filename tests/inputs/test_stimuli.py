"""Neutral stimuli: of the kinds in turn, seeded, and independent of how many there are."""

import sys
from random import Random

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ImageStat

from mars_export.calibration.data import MeasurementOptions
from mars_export.calibration.measurements import stimulus
from mars_export.common.errors import ExportError
from mars_export.inputs import drawings, stimuli, tones
from mars_export.inputs.drawings import KINDS, photos_installed
from mars_export.inputs.requests import Drawn, Media, Request, Turn
from mars_export.inputs.stimuli import MIXTURE, STIMULI, alike, kinds_named, kinds_problem

DRAWN = tuple(kind for kind in KINDS if kind in MIXTURE or photos_installed())
PLAYED = tuple(tones.KINDS)
VISUAL = ("image", "video")
SIDES = st.integers(1, 300)


def colors(image):
    return {color for _, color in image.getcolors(image.width * image.height)}


def drawn(modality, count, *options):
    return [STIMULI[modality].draw(i, *options) for i in range(count)]


def raw(media):
    shown = [m.data if isinstance(m.data, tuple) else (m.data,) for m in media]
    return [[getattr(one, "samples", one).tobytes() for one in frames] for frames in shown]


@settings(deadline=None, max_examples=60)
@given(st.sampled_from(DRAWN), st.integers(), st.tuples(SIDES, SIDES))
@example("scene", 0, (1, 4000))
@example("photo" if photos_installed() else "color", 0, (4000, 1))
@example("writing", 0, (1, 4000))
@example("pattern", 0, (1600, 1200))
def test_a_kind_draws_what_its_source_says(kind, seed, size):
    picture, again = (KINDS[kind](Random(seed), size) for _ in range(2))
    assert (picture.mode, picture.size) == ("RGB", size)
    assert picture.tobytes() == again.tobytes()


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(VISUAL),
    st.integers(0),
    st.lists(st.sampled_from(DRAWN), min_size=1, max_size=4),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(1, 4),
    st.integers(0, 9),
)
def test_a_stimulus_depends_on_its_index_alone(modality, seed, kinds, size, frames, count):
    stimulus = STIMULI[modality]
    made = drawn(modality, count, seed, size, frames, kinds)
    alone = [stimulus.draw(i, seed, size, frames, kinds) for i in reversed(range(count))][::-1]
    assert raw(made) == raw(alone)
    assert [medium.kind for medium in made] == [kinds[i % len(kinds)] for i in range(count)]
    assert {medium.modality for medium in made} <= {modality}
    pictures = raw(made)
    assert {len(shown) for shown in pictures} <= {frames if modality == "video" else 1}
    assert {len(picture) for shown in pictures for picture in shown} <= {3 * size[0] * size[1]}
    single = [stimulus.draw(i, seed, size, frames, (m.kind,)) for i, m in enumerate(made)]
    assert raw(single) == pictures


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.sampled_from(PLAYED), min_size=1, max_size=4, unique=True),
    st.integers(0),
    st.floats(0.05, 4),
)
@example(["speech"], 0, 40.0)
@example(["reversed-speech"], 0, 0.0)
def test_a_sound_depends_on_its_index_alone_and_is_quiet(kinds, seed, seconds):
    options = (seed, (9, 9), 1, kinds, seconds)
    made = drawn("audio", len(kinds), *options)
    again = [STIMULI["audio"].draw(i, *options) for i in reversed(range(len(kinds)))][::-1]
    assert raw(made) == raw(again)
    assert [medium.kind for medium in made] == kinds
    for sound in (medium.data for medium in made):
        assert (sound.rate, sound.samples.dtype, sound.samples.ndim) == (16_000, "float32", 1)
        assert len(sound.samples) == max(1, round(16_000 * seconds))
        assert np.isfinite(sound.samples).all()
        assert np.abs(sound.samples).max() <= 1
        assert np.sqrt((sound.samples.astype(float) ** 2).mean()) <= 10 ** (-20 / 20) + 1e-6


def test_what_the_sounds_play():
    def of(kind):
        return [medium.data.samples for medium in drawn("audio", 8, 0, (1, 1), 1, (kind,))]

    def tilt(samples):
        """Power below 1 kHz over that above it."""
        power = np.abs(np.fft.rfft(samples)) ** 2
        split = len(power) // 8
        return power[:split].sum() / power[split:].sum()

    assert {float(np.abs(s).max()) < 0.001 for s in of("silence")} == {True}
    assert 0 < sum(not s.any() for s in of("silence")) < 8, "zeros, and a hiss"
    assert all(0.1 < tilt(s) < 0.2 for s in of("white-noise"))
    assert all(tilt(s) > 1 for kind in ("pink-noise", "speech-noise") for s in of(kind))
    assert all(len({s.tobytes() for s in of(kind)}) == 8 for kind in PLAYED if kind != "silence")


@pytest.mark.parametrize("kind", DRAWN)
def test_seeds_indices_and_frames_differ(kind):
    first, second = (raw(drawn("image", 8, seed, (64, 64), 1, (kind,))) for seed in (1, 2))
    assert len({picture for (picture,) in first + second}) > 12
    clips = raw(drawn("video", 4, 0, (64, 64), 4, (kind,)))
    assert all(len(set(frames)) > 1 for frames in clips)


def test_what_the_kinds_show():
    def of(kind):
        return [medium.data for medium in drawn("image", 12, 0, (96, 64), 1, (kind,))]

    assert {len(colors(picture)) for picture in of("color")} == {1}
    assert {len(colors(picture)) for picture in of("pattern")} == {2}
    assert all(len(colors(picture)) > 50 for kind in ("noise", "gradient") for picture in of(kind))
    for picture in of("writing"):
        assert all(red == green == blue for red, green, blue in colors(picture))
        assert picture.getpixel((95, 0)) == (255, 255, 255)
        assert 0 < ImageStat.Stat(picture.convert("L")).mean[0] < 254
    assert all(len(colors(picture)) > 5 for picture in of("scene"))


def test_a_text_names_kinds():
    assert kinds_named("mixture") == MIXTURE == (*drawings.MIXTURE, *tones.MIXTURE)
    assert MIXTURE[0] == "color"
    assert not {"photo", "speech"} & set(MIXTURE)
    assert kinds_named("color") == ("color",)
    assert kinds_named("writing, color,writing") == ("writing", "color")
    assert kinds_named("mixture,photo") == (*MIXTURE, "photo")


def test_a_modality_takes_its_own_kinds_or_the_mixture():
    assert not set(KINDS) & set(tones.KINDS), "a name says whether it is seen or heard"
    image, audio = STIMULI["image"], STIMULI["audio"]
    assert image.own(MIXTURE) == drawings.MIXTURE
    assert audio.own(("color",)) == tones.MIXTURE
    assert audio.own(("color", "speech", "silence")) == ("speech", "silence")
    assert alike(MIXTURE, drawings.MIXTURE), "as checkpoints say that know no sound"
    assert alike(("silence",), ("silence", *drawings.MIXTURE))
    assert not alike(("silence",), MIXTURE)
    options = {"index": 5, "seed": 3, "size": (16, 16)}
    drawn = [STIMULI["video"].draw(**options, kinds=k) for k in (MIXTURE, drawings.MIXTURE)]
    assert raw(drawn[:1]) == raw(drawn[1:]), "the pictures of a seed are those of old"


@pytest.mark.parametrize("kinds", [("nois",), ("color", "nois"), (), ("",)])
def test_unknown_kinds_are_refused_before_any_work(kinds):
    with pytest.raises(ExportError, match="mixture, or with commas any of color, noise,") as error:
        MeasurementOptions(kinds=kinds)
    assert ("is it noise?" in str(error.value)) == ("nois" in kinds)
    with pytest.raises(ExportError):
        STIMULI["image"].draw(0, 0, kinds=kinds)


def test_photographs_need_a_package(monkeypatch):
    monkeypatch.setattr(stimuli, "photos_installed", lambda: False)
    assert kinds_problem(MIXTURE) == ""
    with pytest.raises(ExportError, match="pip install scikit-learn"):
        MeasurementOptions(kinds=("color", "photo"))
    drawings._photos.cache_clear()
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(ExportError, match="pip install scikit-learn"):
        KINDS["photo"](Random(0), (8, 8))


def test_a_stimulus_of_a_calibration_waits_to_be_drawn():
    one = stimulus("image", 3, MeasurementOptions())
    assert isinstance(one, Drawn)
    assert one.kind == STIMULI["image"].draw(3, 0).kind
    earlier = Turn("What is it?", "A wall.", (stimulus("video", 1, MeasurementOptions()),))
    request = Request("And this?", (one,), history=(earlier,))
    made = request.made()
    assert [type(medium) for medium in made.conversation_media] == [Media, Media]
    assert made.media[0].data == STIMULI["image"].draw(3, 0).data
    assert made.turns[0].media[0].data == STIMULI["video"].draw(1, 0).data
    assert (made.prompt, made.turns[0].answer) == ("And this?", "A wall.")
    assert made.made() is made
