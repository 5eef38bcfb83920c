"""A damaged base directory: an export that verifies, or one line and nothing left behind.

MARS_FUZZ sets how many are made; a number is the seed of its directory. The names of all kinds of
damage are in `support.mutations`.
"""

import os
import random
import tempfile

import pytest

from mars_export import verify
from support import bases, mutations

COUNT = int(os.environ.get("MARS_FUZZ", "24"))


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return bases.save_whole_base(tmp_path_factory.mktemp("whole") / "base")


@pytest.fixture
def export(whole, tmp_path, monkeypatch):
    """Damages a copy, exports it and checks what happened; returns the line, or None."""
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(logs))

    def run(damage, *arguments):
        place = tmp_path / "place"
        base = bases.copy_of(whole, place / "base")
        damage(base)
        before = sorted(path.name for path in place.iterdir())
        done = bases.command("--model", base, "--output", place / "out", "--display", "none",
                             *arguments)  # fmt: skip
        assert done.code in (0, 2), done
        if done.code == 0:
            assert done.errors == [], done
            checks = verify(place / "out").checks
            assert [c for c in checks if c.status == "failed"] == []
            bases.remove(place)
            return None
        (line,) = done.errors
        assert line.startswith("mars-export: error: "), line
        assert sorted(path.name for path in place.iterdir()) == before, line
        return line

    with bases.quick_exports():
        yield run


@pytest.mark.parametrize("name", mutations.CASES)
def test_known_damage(export, name):
    damage, said = mutations.CASES[name]
    line = export(damage)
    assert said in (line or "verified"), line


def test_damage_of_any_kind(export):
    for seed in range(COUNT):
        kinds = []

        def damage(base, seed=seed, kinds=kinds):
            kinds.append(mutations.damage(base, random.Random(seed)))

        try:
            export(damage)
        except BaseException as error:
            error.add_note(f"seed {seed}: {kinds}")
            raise
