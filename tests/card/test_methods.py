"""The part of a card that a method writes."""

import re
import shlex

import pytest

from mars_export.card.data import CardData
from mars_export.card.render import render
from mars_export.methods import METHODS
from mars_export.methods.addition.record import AdditionRecord, Effect, Trial
from mars_export.methods.base import ArtefactRecord
from support import records


def addition(**changes):
    source = records.calibration().source
    values = {
        "layer": 4, "layer_forced": False, "coefficient": 1.5, "separation": 8.1,
        "positions": "prompt", "trials": [Trial(layer=4, separability=3.0, induced=2.0)],
        "effects": [Effect(label="harmful", modality="image", before=-2.0, after=4.0)],
    }  # fmt: skip
    return ArtefactRecord(
        method="addition", source=source, record=AdditionRecord(**values | changes),
        rules={"layers": [4], "positions": "prompt"}, probes=[],
    )  # fmt: skip


CALIBRATIONS = {"mars": records.calibration(), "addition": addition()}


def test_every_method_that_makes_a_checkpoint_is_here():
    assert {method.name for method in METHODS if method.exportable} == CALIBRATIONS.keys()


@pytest.mark.parametrize("name", CALIBRATIONS)
def test_its_section_stands_in_the_card(name):
    manifest = records.manifest(calibration=CALIBRATIONS[name])
    data = CardData.of(manifest, records.report())
    text = render(manifest, records.report())
    section = text.split("## What was changed")[1].split("\n## ")[0]
    assert data.section.summary in section
    assert f"```text\n{data.section.formula}\n```" in section
    assert "| layer | 4 of 0 to 7" in section
    for limit in data.section.limits:
        assert f"- {limit}\n" in text.split("## Limitations")[1].split("\n## ")[0]
    assert data.section.citations[0] in text.split("## Citation")[1]
    assert f"\n- {name}\n" in text.split("---\n")[1]
    plots = re.findall(r"\]\((assets/[^)]+)\)", text)
    assert plots == list(dict.fromkeys(plots))
    assert set(plots) == set(data.plots)


def test_a_method_without_a_gate_has_no_words_about_one():
    text = render(records.manifest(calibration=addition()), records.report(gates={}))
    assert "constant addition" in text
    for word in ("MARS (", "gate origin", "stays shut", "gate_histogram", "layer_scores"):
        assert word not in text.replace("-MARS", "")


def test_the_command_names_the_method_and_its_options():
    stated = {"layer": 4, "coefficient": 1.5, "positions": "prompt"}
    calibration = addition(layer_forced=True).model_copy(update={"options": stated})
    manifest = records.manifest(calibration=calibration)
    words = shlex.split(CardData.of(manifest, None).command.replace("\\\n", " "))
    flags = dict(zip(words[1::2], words[2::2], strict=True))
    assert flags["--method"] == "addition"
    assert flags["--layer"] == "4"
    assert flags["--coefficient"] == "1.5"
    assert flags["--positions"] == "prompt"
