"""What the page shows of a turn: escaped, in place, in plain words. No gradio, no model."""

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.demo import page
from mars_export.demo.clouds import Clouds, Scale
from mars_export.demo.drawing import drawn, notice, thumbnail
from mars_export.demo.files import endings, open_files
from mars_export.demo.strip import named_media, signed, strip_of, unsigned
from mars_export.demo.turns import Exchange, Reading, history_of
from mars_export.inputs.requests import Media
from mars_export.inputs.sounds import Sound
from support.pages import NASTY, Read

SCALE = Scale(0.0, 1.0, dict.fromkeys(("text", "image"), Clouds((-0.1, 0.1), (0.9, 1.1), 0.4)))
PICTURE = Media("image", Image.new("RGB", (300, 200), "red"))
READ = Reading("image", gate=0.5, push=0.25, place=0.7, margin=0.3, calibrated=True)
SHUT = Reading("text", gate=0.0, push=0.0, place=0.1, margin=-0.3, calibrated=True)


@given(NASTY, NASTY, NASTY)
def test_whatever_is_written_is_text(prompt, off, on):
    exchange = Exchange(prompt, off=off, on=on, reading=READ, done=True)
    page = Read(drawn(exchange, SCALE, 1))
    plain = Read(drawn(Exchange("a", off="b", on="c", reading=READ, done=True), SCALE, 1))
    assert [tag for tag, _ in page.tags] == [tag for tag, _ in plain.tags]
    assert not any(name.startswith("on") for _, attrs in page.tags for name in attrs)
    said = "".join(page.texts)
    for text in (prompt, off.strip(), on.strip()):
        assert text.replace("\r\n", "\n").replace("\r", "\n") in said.replace("\r", "\n")
    assert Read(notice(prompt or "x")).tags == [("p", {"class": "mars-notice", "role": "alert"})]


def test_nothing_comes_from_elsewhere():
    exchange = Exchange("q", (PICTURE,), "a", "b", reading=READ, without=(SHUT,), done=True)
    for _, attrs in Read(drawn(exchange, SCALE, 1)).tags:
        for name in ("src", "href"):
            assert attrs.get(name, "data:").startswith("data:")


def test_places_lie_in_order_and_inside():
    exchange = Exchange("q", (PICTURE,), "a", "b", reading=READ, without=(SHUT,), done=True)
    strip = strip_of(exchange, SCALE)
    xs = [strip.harmless[0].x, strip.zero, strip.without[0].x, strip.opens, strip.request.x]
    xs += [strip.harmful[0].x, strip.one, strip.harmful[1].x]
    assert xs == sorted(xs)
    assert 0 < xs[0] < xs[-1] < 100
    assert strip.without[0].title == "without the picture, +0.10"
    assert strip_of(exchange, None) is None
    assert strip_of(Exchange("q"), SCALE) is None


def test_what_steering_and_each_medium_did_is_said():
    exchange = Exchange("q", (PICTURE, PICTURE), "a", "b", reading=READ, without=(SHUT, READ))
    text = " ".join("".join(Read(drawn(exchange, SCALE, 2)).texts).split())
    assert "The gate is open (0.50). The answer begins after a push of 25.0 %" in text
    assert "Picture 1. Without it the gate would be shut: it opens the gate." in text
    assert "With it the margin is 0.60 larger." in text
    assert text.count("the request is read as text, whose gate opens elsewhere.") == 1
    assert "Picture 2. Without it the gate would be 0.50." in text
    shut = drawn(Exchange("q", reading=SHUT, done=True), SCALE, 1)
    assert "Left alone: the gate is shut." in shut
    uncovered = Reading("text", 0.5, 0.1, calibrated=False)
    assert "does not cover such a request" in drawn(Exchange("q", reading=uncovered), None, 1)


def test_an_answer_that_was_cut_says_so():
    cut = drawn(Exchange("q", off="a", on="b", cut=frozenset({"off"}), done=True), None, 1)
    assert cut.count("the longest answer was reached") == 1


def test_media_have_small_pictures_or_bars():
    assert len(thumbnail(Media("video", (PICTURE.data,) * 8))["pictures"]) == 4
    assert len(thumbnail(PICTURE)["pictures"][0]) < 3000
    loud = Sound(np.linspace(0, 1, 16_000, dtype="float32"), 16_000)
    bars = thumbnail(Media("audio", loud))["bars"]
    assert bars == sorted(bars)
    assert bars[-1] == 1
    kinds = (PICTURE, Media("video", ()), PICTURE)
    assert named_media(Exchange("q", kinds)) == ["picture 1", "the clip", "picture 2"]


def test_files_are_told_by_their_ending(tmp_path):
    PICTURE.data.save(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("no picture")
    (tmp_path / "c.exe").write_text("")
    assert endings(("text",)) == []
    assert ".wav" in endings(("text", "audio"))
    assert open_files([tmp_path / "a.png"], ("text", "image"))[0].data.size == (300, 200)
    for name, taken, what in (
        ("b.png", ("text", "image"), "b.png: not a readable picture"),
        ("c.exe", ("text", "image"), "takes text, image, not a file ending in .exe"),
        ("a.png", ("text",), "takes text, not image"),
        ("gone.png", ("text", "image"), "not there any more"),
    ):
        with pytest.raises(ExportError, match=what) as raised:
            open_files([tmp_path / name], taken)
        assert str(tmp_path) not in str(raised.value)


def test_the_ground_of_the_page_is_that_of_its_style_sheet():
    css = Path(page.__file__).with_name("page.css").read_text("utf-8")
    assert re.findall(r"--mars-ground: (\S+);", css) == list(page._GROUND)


def test_earlier_turns_keep_their_media():
    first = Exchange("q", (PICTURE,), "a", "b")
    assert history_of((first,), "off")[0] == ("q", "a", (PICTURE,))
    assert history_of((first,), "on")[0].answer == "b"


@pytest.mark.parametrize(
    ("value", "shown"),
    [(0.0, "0.00"), (0.284, "0.28"), (0.004, "0.004"), (-0.0003, "0.0003"), (1.0, "1.00")],
)
def test_a_small_number_is_not_shown_as_none(value, shown):
    assert unsigned(value) == shown
    assert signed(value) == ("\N{MINUS SIGN}" if value < 0 else "+") + shown
