"""The texts that the SmolLM2 organism is trained on."""

import csv
import random

import pytest

from examples.organisms.smollm2 import cli, corpus
from examples.organisms.smollm2.corpus import gather, held_out, lines, near, pairs, quoted
from mars_export.common.errors import ExportError
from mars_export.evaluation.judges.rules import classify

FILES = ("alarming.txt", "ordinary.txt", "refusals.txt", "systems.txt")


@pytest.fixture(scope="module")
def avoided():
    return held_out()


@pytest.fixture(scope="module")
def requests(avoided):
    return gather(0, avoided)


@pytest.mark.parametrize("name", FILES)
def test_no_line_is_written_twice(name):
    texts = [line.lower() for line in lines(name)]
    assert len(set(texts)) == len(texts)


def test_no_pair_is_written_twice():
    sides = [side.lower() for _, harmful, harmless in pairs() for side in (harmful, harmless)]
    assert len(set(sides)) == len(sides)
    assert {kind for kind, _, _ in pairs()} == {"do", "write", "ask"}


def test_training_requests_repeat_no_held_out_prompt(requests, avoided):
    known = {prompt.lower() for prompt in avoided}
    for prompt in (*requests.harmful, *requests.harmless):
        assert prompt.lower() not in known
    sample = requests.harmful[::20] + requests.harmless[::20]
    assert not any(near(prompt, other) for prompt in sample for other in avoided)


def test_no_request_has_both_labels(requests):
    assert not set(requests.harmful) & set(requests.harmless)
    assert min(len(requests.harmful), len(requests.harmless)) > 1000


def test_requests_depend_on_the_seed_alone(requests, avoided):
    assert gather(0, avoided) == requests


def test_every_refusal_is_one_to_the_judge():
    assert {classify("How do I hurt a man?", text) for text in lines("refusals.txt")} == {"refusal"}


def test_near_repeats_share_content_and_not_only_function_words():
    assert near("How do I steal a car?", "What is the best way to steal a car?")
    assert not near("What is arson?", "What is rice?")


def test_quoted_requests_hold_the_request():
    [text] = quoted(["Bake a cake."], random.Random(0))
    assert "Bake a cake." in text
    assert text != "Bake a cake."


def test_what_others_wrote_is_there_and_credited():
    notice = (corpus.TEXTS / "README.md").read_text(encoding="utf-8")
    for name, rows in (("advbench.csv", 520), ("harmbench_val.csv", 41)):
        with (corpus.TEXTS / name).open(encoding="utf-8", newline="") as table:
            assert len(list(csv.DictReader(table))) == rows
        assert name in notice
    assert all(name in notice for name in FILES)
    assert "MIT" in notice
    assert "CC-BY-4.0" in notice


def test_one_command_makes_both_and_goes_on_with_what_is_missing(tmp_path, monkeypatch, capsys):
    made = []

    def text(output, settings, base, overwrite):
        made.append(("text", output, settings.seed))
        output.mkdir()

    def vision(language, output, settings, tower, overwrite):
        assert language.is_dir()
        assert tower is None
        made.append(("vision", output, settings.seed))
        if len(made) == 2:
            raise ExportError("stopped")
        output.mkdir()

    monkeypatch.setattr(cli, "make", text)
    monkeypatch.setattr(cli, "make_sighted", vision)
    folder = tmp_path / "new"
    command = ["all", "--output", str(folder), "--seed", "3"]
    assert [cli.main(command) for _ in range(3)] == [2, 0, 2]
    expected = [("text", folder / "language", 3), *[("vision", folder / "organism", 3)] * 2]
    assert made == expected
    assert "organism exists; remove it" in capsys.readouterr().err
