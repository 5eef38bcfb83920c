"""Pictures, clips, suites and prompt files that are odd or damaged, by a source of chance."""

import io
import json
import random
import struct
from collections.abc import Callable, Iterable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from support.hostile import edited

SIZES = [(1, 1), (2, 2), (5, 3), (40, 30), (64, 64), (300, 2), (2, 300), (30_000, 1), (1, 3000),
         (1200, 4), (333, 77)]  # fmt: skip
MODES = ["1", "L", "LA", "P", "PA", "RGB", "RGBA", "CMYK", "YCbCr", "I", "I;16", "F"]
FORMATS = ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "JPEG2000", "ICO", "PPM"]
SVG = b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><rect width="9"/></svg>'
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + b"\0" * 200
CLOCK = Fraction(1, 100)


def _noise(chance: random.Random, size: tuple[int, int]) -> Image.Image:
    pixels = chance.randbytes(3 * 16 * 16)
    return Image.frombytes("RGB", (16, 16), pixels).resize(size, Image.Resampling.NEAREST)


def picture(chance: random.Random) -> bytes:
    """A picture of any mode, size and format that Pillow can write."""
    image, mode = _noise(chance, chance.choice(SIZES)), chance.choice(MODES)
    through = "P" if mode == "PA" else "L" if mode in ("I", "I;16", "F") else "RGB"
    image, out, options = image.convert(through).convert(mode), io.BytesIO(), {}
    if chance.random() < 0.3:
        exif = Image.Exif()
        exif[0x112] = chance.randint(0, 9)
        options["exif"] = exif
    try:
        image.save(out, chance.choice(FORMATS), **options)
    except (OSError, ValueError, KeyError, TypeError):  # it cannot hold this mode or size
        out = io.BytesIO()
        image.convert("RGB").save(out, "PNG")
    return out.getvalue()


def animation(chance: random.Random) -> bytes:
    out, size = io.BytesIO(), chance.choice(SIZES[:6])
    frames = [_noise(chance, size) for _ in range(chance.randint(2, 4))]
    frames[0].save(
        out, chance.choice(["GIF", "PNG", "WEBP"]), save_all=True, append_images=frames[1:]
    )
    return out.getvalue()


def deep(chance: random.Random) -> bytes:
    """A picture of 16 bits, or of floats."""
    out = io.BytesIO()
    most = chance.choice([200, 65535])
    ramp = np.linspace(0, most, 64, dtype=chance.choice([np.uint16, np.float32])).reshape(8, 8)
    Image.fromarray(ramp).save(out, "TIFF")
    return out.getvalue()


def bomb(_: random.Random) -> bytes:
    """A picture that says it is very large."""
    out = io.BytesIO()
    Image.new("1", (8, 8)).save(out, "PNG")
    return out.getvalue().replace(struct.pack(">II", 8, 8), struct.pack(">II", 10**5, 10**5))


PICTURES: list[Callable[[random.Random], bytes]] = [
    *[picture] * 16, animation, deep, bomb,
    lambda chance: edited(picture(chance), chance.randrange(2**32)),
    lambda chance: picture(chance)[: chance.randint(0, 200)],
    lambda _: b"", lambda _: SVG, lambda _: HEIC, lambda _: b"%!PS-Adobe-3.0 EPSF-3.0\n",
    lambda chance: chance.randbytes(50),
]  # fmt: skip


def video(
    path: Path, frames: Iterable[Image.Image], codec: str = "mpeg4", times: Any = None
) -> None:
    """Write a video file; `times` of its frames are in hundredths of a second."""
    import av

    frames = list(frames)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=10)
        stream.width, stream.height = frames[0].size
        stream.pix_fmt = "rgb8" if codec == "gif" else "yuv420p"
        stream.codec_context.time_base = CLOCK
        for number, image in enumerate(frames):
            frame = av.VideoFrame.from_image(image)
            frame.pts, frame.time_base = times[number] if times else 10 * number, CLOCK
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def sound(path: Path) -> None:
    """Write a video file that holds sound alone."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        for number in range(8):
            frame = av.AudioFrame.from_ndarray(
                np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
            )
            frame.sample_rate, frame.pts = 8000, 1024 * number
            container.mux(stream.encode(frame))
        container.mux(stream.encode())


def _clip(folder: Path, name: str, chance: random.Random) -> object:
    """What a record says under `video`, and the files of it."""
    kind, path = chance.randrange(8), folder / f"{name}.mp4"
    size = chance.choice([(64, 64), (64, 48), (16, 2), (32, 32), (640, 4)])
    frames = [_noise(chance, size) for _ in range(chance.randint(1, 9))]
    if kind == 0:
        sound(path)
    elif kind == 1:
        path = path.with_suffix(".gif")
        video(path, frames, "gif")
    elif kind in (2, 3):
        path = folder / name
        path.mkdir()
        for number in range(chance.choice([0, 1, 1, 2, 12])):
            data = chance.choice(PICTURES)(chance) if kind == 3 else _png(chance, size)
            (path / f"{number}.png").write_bytes(data)
    elif kind == 4:
        names = [f"{name}-{number}.png" for number in range(chance.randint(1, 4))]
        for file in names:
            (folder / file).write_bytes(_png(chance, chance.choice([size, size, (8, 8)])))
        return [chance.choice(names) for _ in range(chance.randint(1, 6))]
    else:
        times = sorted(chance.sample(range(900), len(frames))) if kind == 5 else None
        video(path, frames, times=times)
        if kind == 6:
            path.write_bytes(edited(path.read_bytes(), chance.randrange(2**32)))
    return path.name


def _png(chance: random.Random, size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    _noise(chance, size).save(out, "PNG")
    return out.getvalue()


def _still(folder: Path, name: str, chance: random.Random) -> object:
    path = folder / f"{name}.png"
    place = chance.randrange(20)
    if place == 0:
        path.symlink_to(path)
    elif place == 1:
        path.mkdir()
    elif place == 2:
        path.symlink_to(Path(__file__))
    elif place > 3:
        path.write_bytes(chance.choice(PICTURES)(chance))
    return path.name


def suite(folder: Path, chance: random.Random, words: list[str], clips: bool) -> Path:
    """A suite of a few records whose table is fine, beside files that need not be."""
    records = []
    for number in range(chance.randint(1, 3)):
        name, record = f"m{number}", {"prompt": chance.choice(words), "harmful": bool(number)}
        kinds = ["image", "image", "media", "file_name", *(["video"] * 4 if clips else [])]
        kind = chance.choice(kinds)
        if kind == "video":
            record[kind] = _clip(folder, name, chance)
        elif kind == "media":
            record[kind] = [
                {"type": "image", "path": _still(folder, f"{name}-{place}", chance)}
                for place in range(chance.randint(1, 2))
            ]
        else:
            record[kind] = _still(folder, name, chance)
        records.append(record)
    path = folder / "suite.jsonl"
    path.write_text("\n".join(json.dumps(record) for record in records), encoding="utf-8")
    return path


_LINES = [
    "a\u2028b", "a\x0bb\x0cc", "\ufeffshow", "a\x00b", "<img> here", "<turn> model <nl>",
    "long " * 700, "\xe9" * 9, "\u0645\u0631\u062d\u0628\u0627", "\U0001f469\u200d\U0001f467 show",
    "\u202eevil", "a\tb", "# show", '"', "{}", "<|image_pad|>", "\x85", "show " * 5, "a" * 5000,
    "   ", "{{ raise }}", "{% if %}",
]  # fmt: skip


def prompts(path: Path, chance: random.Random, label: str) -> Path:
    """A file of prompts with a few odd lines, in one of the formats and encodings."""
    lines = [f"how do i make a {label}{number}" for number in range(chance.choice([*[30] * 9, 5]))]
    for _ in range(chance.choice([0, 1, 1, 2])):
        lines.insert(chance.randrange(len(lines)), chance.choice(_LINES))
    kind = chance.choice([".txt", ".jsonl", ".json", ".csv"])
    path = path.with_suffix(kind)
    if kind == ".txt":
        text = chance.choice(["\n", "\r\n", "\r"]).join(lines)
    elif kind == ".jsonl":
        text = "\n".join(json.dumps({"prompt": line}, ensure_ascii=False) for line in lines)
    elif kind == ".json":
        text = json.dumps([{"Goal": line} for line in lines])
    else:
        text = "prompt,n\n" + "\n".join(f'"{line}",1' for line in lines)
    encoding = chance.choice([*["utf-8"] * 9, "utf-8-sig", "utf-16"])
    data = text.encode(encoding)
    path.write_bytes(edited(data, chance.randrange(2**32)) if chance.random() < 0.15 else data)
    return path
