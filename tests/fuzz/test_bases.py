"""An odd or damaged base: an export that verifies and loads, or one line and nothing left.

MARS_FUZZ sets how many are made, MARS_FUZZ_FROM the first: a number is the seed of its directory.
The names of all kinds of damage are in `support.mutations` and `support.oddities`.
"""

import os
import random
import tempfile

import pytest
import transformers

from mars_export import verify
from mars_export.families import families
from support import bases, mutations, oddities

COUNT = int(os.environ.get("MARS_FUZZ", "48"))
FIRST = int(os.environ.get("MARS_FUZZ_FROM", "0"))


@pytest.fixture(scope="module")
def wholes(tmp_path_factory):
    root = tmp_path_factory.mktemp("whole")
    return {kind: bases.save_whole_base(root / kind, kind) for kind in bases.KINDS}


@pytest.fixture
def export(wholes, tmp_path, monkeypatch):
    """Damages a copy, exports it and checks what happened; returns the line, or None."""
    logs = tmp_path / "logs"
    logs.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(logs))

    def run(damage, kind="gemma3"):
        place = tmp_path / "place"
        base = bases.copy_of(wholes[kind], place / "base")
        damage(base)
        before = sorted(path.name for path in place.iterdir())
        done = bases.command("--model", base, "--output", place / "out", "--display", "none")
        assert done.code in (0, 2), done
        if done.code == 0:
            assert done.errors == [], done
            checks = verify(place / "out").checks
            assert [c for c in checks if c.status == "failed"] == []
            loader = getattr(transformers, families()[kind].auto_class)
            assert loader.from_pretrained(place / "out", trust_remote_code=True).steering.enabled
            bases.remove(place)
            return None
        (line,) = done.errors
        assert line.startswith("mars-export: error: "), line
        assert sorted(path.name for path in place.iterdir()) == before, line
        return line

    with bases.quick_exports():
        yield run


@pytest.mark.parametrize("name", [*mutations.CASES, *oddities.ODDITIES])
def test_known_damage(export, name):
    damage, said = (mutations.CASES | oddities.ODDITIES)[name]
    line = export(damage)
    assert said in (line or "verified"), line


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("text_config is null", "verified"),
        ("named templates", "verified"),
        ("named templates without a default", "a, b and none that is called default"),
    ],
)
def test_a_text_model(export, name, said):
    damage, _ = (mutations.CASES | oddities.ODDITIES)[name]
    assert said in (export(damage, "llama") or "verified")


@pytest.mark.parametrize("kind", bases.KINDS)
def test_damage_of_any_kind(export, kind):
    assert export(lambda base: None, kind) is None
    for seed in range(FIRST, FIRST + COUNT):
        kinds = []

        def damage(base, seed=seed, kinds=kinds):
            kinds.append(mutations.damage(base, random.Random(f"{kind} {seed}")))

        if bases.KINDS[seed % len(bases.KINDS)] != kind:
            continue
        try:
            export(damage, kind)
        except BaseException as error:
            error.add_note(f"seed {seed}: {kinds}")
            raise
