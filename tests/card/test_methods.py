"""The part of a card that a method writes."""

import re
import shlex

import pytest

from mars_export.card.data import CardData
from mars_export.card.render import render
from mars_export.methods import method_named
from support import records, tiny


def addition(**changes):
    return tiny.addition("gemma3", **{"positions": "prompt", "coefficient": 1.5, **changes}).record


@pytest.mark.parametrize("case", tiny.METHOD_CASES.values(), ids=tiny.METHOD_CASES)
def test_its_section_stands_in_the_card(case):
    calibration = case.artefact("gemma3", **case.options).record
    manifest = records.manifest(calibration=calibration)
    data = CardData.of(manifest, records.report())
    text = render(manifest, records.report())
    section = text.split("## What was changed")[1].split("\n## ")[0]
    assert data.section.summary in section
    assert f"```text\n{data.section.formula}\n```" in section
    for layer in calibration.layers:
        assert f"| layer | {layer} of 0 to {calibration.source.layers - 1}" in section
    for limit in data.section.limits:
        assert f"- {limit}\n" in text.split("## Limitations")[1].split("\n## ")[0]
    threats = text.split("## Threat model")[1].split("\n## ")[0]
    for threat in data.section.threats:
        assert f"- {threat}\n" in threats
    for part in method_named(case.method).parts:
        tensors = part.rule_class().TENSORS
        assert any(f"named tensor (`{name}` of" in threats for name in tensors)
    assert data.section.citations[0] in text.split("## Citation")[1]
    assert f"\n- {case.method}\n" in text.split("---\n")[1]
    plots = re.findall(r"\]\((assets/[^)]+)\)", text)
    assert plots == list(dict.fromkeys(plots))
    assert set(plots) == set(data.plots)


def test_a_method_without_a_gate_has_no_words_about_one():
    text = render(records.manifest(calibration=addition()), records.report(gates={}))
    assert "Constant addition" in text
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


def test_a_method_that_leaves_most_pictures_alone_does_not_call_that_a_failure():
    for name, always in (("mars", True), ("mars+rai", True), ("rai", False)):
        calibration = tiny.METHOD_CASES[name].artefact("gemma3").record
        text = render(records.manifest(calibration=calibration), None)
        assert ("do not rely on this copy" in text) is always
        assert ("no visual token that was to be pushed" in text) is not always
