"""Neutral stimuli: of the kinds in turn, seeded, and independent of how many there are."""

import sys
from random import Random

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import ImageStat

from mars_export.calibration.data import MeasurementOptions
from mars_export.common.errors import ExportError
from mars_export.inputs import drawings, stimuli
from mars_export.inputs.drawings import KINDS, MIXTURE, photos_installed
from mars_export.inputs.stimuli import STIMULI, kinds_named, kinds_problem

DRAWN = tuple(kind for kind in KINDS if kind in MIXTURE or photos_installed())
SIDES = st.integers(1, 300)


def colors(image):
    return {color for _, color in image.getcolors(image.width * image.height)}


def drawn(modality, count, *options):
    return [STIMULI[modality].draw(i, *options) for i in range(count)]


def raw(media):
    pictures = [m.data if isinstance(m.data, tuple) else (m.data,) for m in media]
    return [[picture.tobytes() for picture in frames] for frames in pictures]


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
    st.sampled_from(sorted(STIMULI)),
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
    assert {len(shown) for shown in pictures} <= {frames if stimulus.frames else 1}
    assert {len(picture) for shown in pictures for picture in shown} <= {3 * size[0] * size[1]}
    single = [stimulus.draw(i, seed, size, frames, (m.kind,)) for i, m in enumerate(made)]
    assert raw(single) == pictures


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
    assert kinds_named("mixture") == MIXTURE
    assert MIXTURE[0] == "color"
    assert "photo" not in MIXTURE
    assert kinds_named("color") == ("color",)
    assert kinds_named("writing, color,writing") == ("writing", "color")
    assert kinds_named("mixture,photo") == (*MIXTURE, "photo")


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
