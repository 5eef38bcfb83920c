"""`model_cards/*-compared` hold what the code renders today from the record beside each card."""

from pathlib import Path

import pytest

from mars_export.comparison.card import render
from mars_export.comparison.figures import FRONTIER
from mars_export.comparison.record import COMPARISON_NAME, Comparison
from mars_export.methods import METHODS

ROOT = Path(__file__).parents[2]
CARDS = sorted(path.parent for path in (ROOT / "model_cards").glob(f"*/{COMPARISON_NAME}"))
UNFINISHED = {"qwen2_5_omni"}
"""An organism whose training is too short for steering, as its README says: it has no card yet."""
ORGANISMS = {
    path.parent.name for path in (ROOT / "examples/organisms").glob("*/config.json")
} - UNFINISHED


def test_every_organism_is_compared():
    assert {f"{name}-compared" for name in ORGANISMS} <= {card.name for card in CARDS}


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_comparison_cards_are_up_to_date(folder):
    comparison = Comparison.model_validate_json((folder / COMPARISON_NAME).read_bytes())
    assert (folder / "README.md").read_text("utf-8") == render(comparison)
    assert (folder / FRONTIER).is_file() == (comparison.answered is not None)
    exportable = {method.name for method in METHODS if method.exportable}
    assert exportable <= {contender.name for contender in comparison.contenders}
