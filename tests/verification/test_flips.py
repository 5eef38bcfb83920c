"""A thousand damaged bits: every one is noticed, and in the steering tensors at load too."""

import random

import pytest
import torch
import transformers

from mars_export import ExportError, verify

pytestmark = pytest.mark.use("verify", family="gemma3")
FLIPS = 1000
LOADS = 25
TENSORS = "steering.safetensors"


@pytest.fixture
def owned(steered):
    """The checkpoint with its shards as files of its own: they are links to the base's."""
    for path in steered.glob("*.safetensors"):
        content = path.read_bytes()
        path.unlink()
        path.write_bytes(content)
    return steered


def places(directory, rng, count):
    """`count` bits, as (file, byte, bit): half of them anywhere, half of them in any file."""
    files = sorted(path for path in directory.rglob("*") if path.is_file())
    sizes = [path.stat().st_size for path in files]
    for number in range(count):
        weights = sizes if number % 2 else None
        (index,) = rng.choices(range(len(files)), weights)
        yield files[index], rng.randrange(sizes[index]), rng.randrange(8)


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
    assert seen == {path.name for path in owned.rglob("*") if path.is_file()}


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
    (layer,) = model._steered_layers().values()
    model.verify_steering()
    for name in ("direction", "shift", "bounds"):
        data = getattr(layer.steering, name).view(torch.uint8)
        for byte in range(len(data)):
            data[byte] ^= 1
            with pytest.raises(RuntimeError, match="steered checkpoint is damaged"):
                model.verify_steering()
            data[byte] ^= 1
    model.verify_steering()
