"""Pictures are opened as Transformers opens them, or refused in one line."""

import io
import random
import shutil
import struct

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from transformers.image_utils import load_image

from mars_export.common.errors import ExportError
from mars_export.inputs.media import open_picture, read_frames
from support import odd_media

MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "LAB", "HSV", "I", "I;16", "F"]
FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "PPM", "TGA", "ICO", "JPEG2000", "EPS"]


def noise(mode, size, seed):
    pixels = random.Random(seed).randbytes(size[0] * size[1] * 3)
    picture = Image.frombytes("RGB", size, pixels)
    if mode in ("PA", "LAB", "HSV", "I", "I;16", "F"):
        picture = picture.convert("P" if mode == "PA" else "RGB" if mode in ("LAB", "HSV") else "L")
    return picture.convert(mode) if mode != "LAB" else picture


def encoded(picture, kind, **options):
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


@settings(
    max_examples=100, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)  # fmt: skip
@given(
    st.sampled_from(MODES),
    st.sampled_from(FORMATS),
    st.tuples(st.integers(1, 40), st.integers(1, 40)),
    st.integers(0, 9),
    st.integers(0, 99),
)
def test_a_picture_is_what_transformers_makes_of_it(tmp_path, mode, kind, size, turn, seed):
    exif = Image.Exif()
    exif[0x112] = turn
    picture = noise(mode, size, seed)
    path = tmp_path / "picture.png"  # whatever it is: the bytes decide
    try:
        path.write_bytes(encoded(picture, kind, **({"exif": exif} if turn else {})))
    except (OSError, ValueError, KeyError, TypeError):
        return  # this format cannot hold it
    if kind == "EPS":
        with pytest.raises(ExportError, match="PostScript"):
            open_picture(path, "here")
        return
    try:
        Image.open(path).load()
    except OSError:
        return  # Pillow 12 writes some icons that it cannot read
    same = open_picture(path, "here")
    assert same.mode == "RGB"
    assert np.array_equal(np.asarray(same), np.asarray(load_image(str(path))))
    if kind != "TIFF":  # Pillow reads those of a file otherwise
        assert open_picture(path.read_bytes(), "here").tobytes() == same.tobytes()


def test_a_photograph_is_turned_upright():
    picture = Image.new("RGB", (40, 20))
    exif = picture.getexif()
    exif[0x112] = 6
    assert open_picture(encoded(picture, "JPEG", exif=exif), "here").size == (20, 40)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bits_are_refused_where_they_would_turn_white(kind):
    ramp = np.linspace(0, 65535, 64, dtype=np.uint16).reshape(8, 8)
    with pytest.raises(ExportError, match=r"here: .*values from 0 to 65535.* save it with 8 bits"):
        open_picture(encoded(Image.fromarray(ramp), kind), "here")
    assert open_picture(encoded(Image.fromarray(ramp // 257), kind), "here").getpixel((7, 7))[0]


def test_of_an_animation_the_first_frame_is_taken():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "lime")]
    for kind in ("GIF", "PNG", "WEBP"):
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:])
        red, green, _ = open_picture(data, "here").getpixel((4, 4))
        assert (red > 200, green < 50) == (True, True), kind


def test_a_decompression_bomb_is_refused(tmp_path):
    header = struct.pack(">IIBBBBB", 100_000, 100_000, 1, 0, 0, 0, 0)
    png = encoded(Image.new("1", (8, 8)), "PNG").replace(struct.pack(">II", 8, 8), header[:8])
    with pytest.raises(ExportError, match="here: not a readable picture"):
        open_picture(png, "here")


PNG = encoded(noise("RGB", (16, 16), 1), "PNG")
JPEG = encoded(noise("RGB", (16, 16), 1), "JPEG")


@settings(max_examples=200, deadline=None, derandomize=True, database=None)
@given(st.sampled_from([PNG, JPEG]), st.integers(0, 2**32))
def test_damaged_pictures_are_read_or_refused_in_one_line(whole, seed):
    chance = random.Random(seed)
    data = bytearray(whole)
    if chance.random() < 0.3:
        del data[chance.randrange(len(data)) :]
    for _ in range(chance.randrange(4)):
        if data:
            data[chance.randrange(len(data))] = chance.randrange(256)
    refusal = ""
    try:
        assert open_picture(bytes(data), "here").mode == "RGB"
    except ExportError as error:
        refusal = str(error)
    assert not refusal or refusal.startswith("here: not a readable picture (")
    assert "\n" not in refusal


def test_what_is_no_picture(tmp_path):
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "empty.png").touch()
    (tmp_path / "text.png").write_text("no picture")
    for name in ("folder.png", "empty.png", "text.png", "none.png"):
        with pytest.raises(ExportError, match="here: not a readable picture") as caught:
            open_picture(tmp_path / name, "here")
        assert str(tmp_path) not in str(caught.value)


def test_what_is_no_clip(tmp_path):
    pytest.importorskip("av")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("no video" * 99)
    (tmp_path / "folder").mkdir()
    shutil.copy(__file__, tmp_path / "folder" / "a.png")
    (tmp_path / "nothing").mkdir()
    odd_media.sound(tmp_path / "sound.mp4")
    for name in ("empty.mp4", "text.mp4", "folder", "nothing", "none.mp4", "sound.mp4"):
        with pytest.raises(ExportError, match=rf"^t\.csv, line 3, {name[:3]}|a\.png") as caught:
            read_frames(tmp_path / name, "t.csv, line 3")
        assert "\n" not in str(caught.value)
        with pytest.raises(ExportError) as caught:
            read_frames(tmp_path / name, str(tmp_path / name))
        assert str(caught.value).count(str(tmp_path)) == 1


GRAYS = [Image.new("RGB", (64, 48), (20 * n,) * 3) for n in range(12)]


def brightness(frames):
    return [round(frame.getpixel((9, 9))[0] / 20) for frame in frames]


@pytest.mark.parametrize("count", [1, 3, 12])
def test_eight_frames_of_a_clip_are_taken_in_order(tmp_path, count):
    pytest.importorskip("av")
    odd_media.video(tmp_path / "a.mp4", GRAYS[:count])
    odd_media.video(tmp_path / "rate.mp4", GRAYS[:count], times=[n * n for n in range(count)])
    odd_media.video(tmp_path / "a.gif", GRAYS[:count], "gif")
    (tmp_path / "folder").mkdir()
    for number in range(count):
        GRAYS[number].save(tmp_path / "folder" / f"{number}.png")  # 10 stands behind 9
    evenly = [round(n * (count - 1) / 7) for n in range(8)]
    for name in ("a.mp4", "rate.mp4", "folder"):
        assert brightness(read_frames(tmp_path / name, "here")) == evenly, name
    assert len(read_frames(tmp_path / "a.gif", "here")) == 8
