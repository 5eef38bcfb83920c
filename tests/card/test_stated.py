"""Numbers that pages state of the toys are those of their cards."""

import re

import pytest

from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import Report, label
from support.organisms import ORGANISMS, ROOT

PAIR = re.compile(r"(\d+) → (\d+)")
CHANGE = re.compile(r"(\d+)\s+instead\s+of\s+(\d+)")
TOYS = {
    "Gemma 3 toy model": "gemma3",
    "Qwen3-VL toy model": "qwen3_vl",
    "Qwen2.5-Omni toy model": "qwen2_5_omni",
}


def counts(cells):
    """Refused with steering off and on, by kind of request."""
    found = {(label(c.harmful, c.modality), c.arm): str(c.refused.count) for c in cells}
    return {k: (found[k, "off"], count) for (k, arm), count in found.items() if arm == "on"}


def report(toy):
    return Report.model_validate_json((ROOT / f"model_cards/{toy}-MARS" / REPORT_NAME).read_bytes())


def test_the_table_of_the_readme_is_that_of_the_cards():
    text = re.sub(r"\[(\w+)\]\(\S+?\)", r"\1", (ROOT / "README.md").read_text("utf-8"))
    table = re.search(r"(?:^\|.*\n)+", text.partition("## What it did")[2], re.MULTILINE)
    head, _, *rows = table[0].splitlines()
    _, *titles = (cell.strip() for cell in head.strip("|").split("|"))
    for place, toy in enumerate(map(TOYS.get, titles), 1):
        stated = {}
        for kinds, *cells in (row.strip("|").split("|") for row in rows):
            harm, modalities = kinds.strip().split(" ", 1)
            pairs = PAIR.findall(cells[place - 1])
            stated |= zip((f"{harm} {m}" for m in modalities.split(", ")), pairs, strict=False)
        assert stated == counts(report(toy).cells), toy


@pytest.mark.parametrize("page", ["docs/audio.md", "examples/organisms/qwen2_5_omni/README.md"])
def test_what_steering_changes_is_that_of_the_card_or_of_another_seed(page):
    card = report("qwen2_5_omni")
    measured = {pair for v in (card, *card.variants) for pair in counts(v.cells).values()}
    seeds = (ORGANISMS / "qwen2_5_omni/README.md").read_text("utf-8")
    measured |= set(PAIR.findall(seeds))
    stated = [(off, on) for on, off in CHANGE.findall((ROOT / page).read_text("utf-8"))]
    assert len(stated) > 5
    assert [pair for pair in stated if pair not in measured] == []
