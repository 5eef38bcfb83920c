"""Digests of several files at once."""

import hashlib
import threading
import time

import pytest

from mars_export.families import directory
from mars_export.families.directory import digests


@pytest.fixture
def paths(tmp_path, monkeypatch):
    monkeypatch.setattr(directory, "_CHUNK", 1000)
    paths = [tmp_path / f"{number}.bin" for number in range(9)]
    for number, path in enumerate(paths):
        path.write_bytes(bytes([number]) * (1500 * number))
    return paths


def test_digests_keep_their_order_and_every_byte_is_told_once(paths):
    told = []
    found = digests(paths, told.append)
    assert found == [hashlib.sha256(path.read_bytes()).hexdigest() for path in paths]
    assert sum(told) == sum(path.stat().st_size for path in paths)
    assert digests(paths) == found
    assert digests([]) == []


def test_files_are_hashed_at_the_same_time(paths):
    both = threading.Barrier(2, timeout=30)
    seen = set()

    class Sha:
        def update(self, piece):
            if piece[0] in (1, 2) and piece[0] not in seen:
                seen.add(piece[0])
                both.wait()  # ends when the other one has begun

        def hexdigest(self):
            return "done"

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(directory.hashlib, "sha256", Sha)
        assert digests(paths[1:3]) == ["done", "done"]


def test_a_file_that_cannot_be_read_ends_the_others(paths):
    paths[1].unlink()
    large = paths[0].with_name("large.bin")
    large.write_bytes(bytes(5_000_000))
    told = []
    with pytest.raises(FileNotFoundError):
        digests([large, *paths], lambda size: told.append(size) or time.sleep(0.001))
    assert sum(told) < 5_000_000


def test_what_progress_raises_comes_through(paths):
    def stop(_size):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        digests(paths, stop)
