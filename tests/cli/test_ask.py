"""`mars-export ask`: two answers, and what steering did."""

import json

import pytest

from mars_export.cli.main import cli
from support import planted
from support.worded import export_worded


@pytest.fixture(scope="module")
def steered(tmp_path_factory):
    """A random Gemma 3 whose steering acts on everything."""
    return export_worded(tmp_path_factory.mktemp("ask"), planted.processor(), origin=-1e6)[1]


def test_both_answers_with_gate_and_push(mars, steered, tmp_path):
    planted_picture(tmp_path / "a.png")
    words = ["ask", steered, "what is this", "--image", "a.png", "--max-new-tokens", "3"]
    told = json.loads(mars(*words, "--json").out)
    assert [reply["steering"] for reply in told["replies"]] == ["off", "on"]
    off, on = told["replies"]
    assert (off["decision"], off["push"]) == (None, None)
    assert on["decision"]["modality"] == "image"
    assert on["decision"]["strength"] > 0
    assert on["push"] > 0
    done = mars(*words)
    assert done.code == 0
    assert done.out.startswith("steering off\n  ")
    assert f"steering on: image request, gate {on['decision']['gate']:.2f}, push " in done.out


def planted_picture(path):
    from PIL import Image

    Image.new("RGB", (32, 32), "steelblue").save(path)


def test_what_cannot_be_shown_is_one_line(mars, steered, tmp_path):
    (tmp_path / "photo.png").write_text("no picture")
    for name, message in (
        ("phto.png", "--image: there is no file phto.png; is it photo.png?"),
        ("photo.png", "photo.png: not a readable picture"),
    ):
        done = mars("ask", steered, "what is this", "--image", name, "--display", "none")
        assert (done.code, done.out, len(done.errors)) == (2, "", 1)
        assert message in done.errors[0]


def test_every_command_that_a_program_may_read_has_json():
    named = {n for n, c in cli.commands.items() if any("--json" in p.opts for p in c.params)}
    assert named == set(cli.commands)


def test_lists_as_json(mars):
    assert {f["model_type"] for f in json.loads(mars("families", "--json").out)} > {"gemma3"}
    assert {s["name"] for s in json.loads(mars("suites", "--json").out)} > {"typographic"}
