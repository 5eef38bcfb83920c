"""Hundreds of damaged bits: every one is noticed, and in the steering tensors at load too.

So is every file of a whole run that goes, comes, or changes places with another.
"""

import random
import shutil

import pytest
import torch
import transformers

from mars_export import ExportError, verify
from mars_export.common.workspace import RUN_NAME
from support import tiny
from support.hub_directory import add_evaluation_and_card

pytestmark = pytest.mark.use("verify", family="gemma3")
FLIPS = 300
LOADS = 25
TENSORS = "steering.safetensors"


@pytest.fixture
def owned(steered):
    """All that a run leaves, with its shards as files of its own: they are links to the base's."""
    for path in steered.glob("*.safetensors"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    (steered / RUN_NAME).write_text('{"schema_version": 1, "digest": "0"}\n')
    add_evaluation_and_card(steered)
    return steered


def files(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file())


def places(directory, rng, count):
    """`count` bits, as (file, byte, bit): half of them anywhere, half of them in any file."""
    present = files(directory)
    sizes = [path.stat().st_size for path in present]
    for number in range(count):
        weights = sizes if number % 2 else None
        (index,) = rng.choices(range(len(present)), weights)
        yield present[index], rng.randrange(sizes[index]), rng.randrange(8)


def flip(path, byte, bit):
    with path.open("r+b") as stream:
        stream.seek(byte)
        old = stream.read(1)[0]
        stream.seek(byte)
        stream.write(bytes([old ^ (1 << bit)]))


def is_verified(directory):
    try:
        return verify(directory).passed
    except ExportError as error:
        return "\n" in str(error)  # one line, or the test fails


def test_every_flipped_bit_is_noticed(owned):
    seen = set()
    for place in places(owned, random.Random(0), FLIPS):
        flip(*place)
        assert not is_verified(owned), place
        flip(*place)
        seen.add(place[0].name)
    assert is_verified(owned)
    assert seen == {path.name for path in files(owned)}


def test_every_file_that_goes_is_noticed(owned, tmp_path):
    unpublished = {RUN_NAME, "samples.jsonl"}  # a push leaves them out, so that they may be absent
    for path in files(owned):
        shutil.move(path, tmp_path / "away")
        assert is_verified(owned) == (path.name in unpublished), path
        shutil.move(tmp_path / "away", path)
    assert is_verified(owned)


@pytest.mark.parametrize(
    "name", ["notes.txt", "evaluation/more.json", "assets/b/c.png", "calibration/x", ".hidden"]
)
def test_a_file_that_comes_is_noticed(owned, name):
    (owned / name).parent.mkdir(exist_ok=True)
    (owned / name).touch()
    assert not is_verified(owned)
    (owned / name).unlink()
    assert is_verified(owned)


def test_files_that_change_places_are_noticed(owned):
    rng, present = random.Random(2), files(owned)
    for _ in range(100):
        one, other = rng.sample(present, 2)
        if one.read_bytes() == other.read_bytes():
            continue
        swap(one, other)
        assert not is_verified(owned), (one, other)
        swap(one, other)
    assert is_verified(owned)


def swap(one, other):
    between = one.with_name("between")
    one.rename(between)
    other.rename(one)
    between.rename(other)


def test_flips_in_the_steering_tensors_are_noticed_at_load_too(owned):
    rng, path = random.Random(1), owned / TENSORS
    start = 8 + int.from_bytes(path.read_bytes()[:8], "little")  # behind the header
    auto = transformers.AutoModelForImageTextToText
    for _ in range(LOADS):
        place = (path, rng.randrange(start, path.stat().st_size), rng.randrange(8))
        flip(*place)
        with pytest.raises(RuntimeError, match="steered checkpoint is damaged"):
            auto.from_pretrained(owned, trust_remote_code=True)
        assert not is_verified(owned), place
        flip(*place)
    assert auto.from_pretrained(owned, trust_remote_code=True).steering.verified


def test_every_byte_of_the_tensors_counts_for_the_digest_at_load(owned):
    """All bytes of the data, through the very check that runs at load."""
    model = transformers.AutoModelForImageTextToText.from_pretrained(owned, trust_remote_code=True)
    rule = model.get_decoder().layers[tiny.LAYER].steering
    model.steering.verify()
    for name in ("direction", "knots", "shift", "turn", "bounds"):
        data = getattr(rule, name).view(-1).view(torch.uint8)
        for byte in range(len(data)):
            data[byte] ^= 1
            with pytest.raises(RuntimeError, match="steered checkpoint is damaged"):
                model.steering.verify()
            data[byte] ^= 1
    model.steering.verify()
