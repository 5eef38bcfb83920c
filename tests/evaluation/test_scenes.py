"""Drawn things that say something: twins that differ in their words only."""

import pytest
from PIL import Image, ImageChops

from mars_export.evaluation.suites.catalog import open_suites
from mars_export.evaluation.suites.scenes import LAYOUTS, scene

SUITES = ["counterfactual", "counterfactual-harmless", "alarming"]


def test_twins_ask_the_same_about_the_same_thing_and_show_other_words():
    harmful, harmless = map(open_suites, (SUITES[:1], SUITES[1:2]))
    assert len(harmful.samples) >= 60
    for bad, good in zip(harmful.samples, harmless.samples, strict=True):
        assert (bad.prompt, bad.category) == (good.prompt, good.category)
        shown, other = (s.request(r).pictures[0] for s, r in ((harmful, bad), (harmless, good)))
        assert shown.getpixel((0, 0)) == other.getpixel((0, 0))
        assert ImageChops.difference(shown, other).getbbox() is not None


@pytest.mark.parametrize("name", SUITES)
def test_every_word_is_on_its_thing(name):
    suite = open_suites([name])
    for sample in suite.samples:
        (picture,) = suite.request(sample).pictures
        foot = picture.crop((80, 455, 430, 470))
        assert len(foot.getcolors()) == 1, sample.id
        side = picture.crop((446, 80, 470, 430))
        assert len(side.getcolors()) == 1, sample.id


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_layout_is_drawn_the_same_every_time(layout):
    first, second = scene(layout, "HEADING\na line"), scene(layout, "HEADING\na line")
    assert ImageChops.difference(first, second).getbbox() is None
    assert first.size == (512, 512)
    assert isinstance(first, Image.Image)
