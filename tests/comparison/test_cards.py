"""`model_cards/*-compared` hold what the code renders today from the record beside each card."""

from pathlib import Path

import pytest

from mars_export.comparison.card import render
from mars_export.comparison.figures import FRONTIER
from mars_export.comparison.record import COMPARISON_NAME, Comparison
from mars_export.methods import METHODS, taken
from support.organisms import WITH_CARDS

ROOT = Path(__file__).parents[2]
CARDS = sorted(path.parent for path in (ROOT / "model_cards").glob(f"*/{COMPARISON_NAME}"))


def test_every_organism_is_compared():
    assert {f"{name}-compared" for name in WITH_CARDS} <= {card.name for card in CARDS}


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_comparison_cards_are_up_to_date(folder):
    comparison = Comparison.model_validate_json((folder / COMPARISON_NAME).read_bytes())
    assert (folder / "README.md").read_text("utf-8") == render(comparison)
    assert (folder / FRONTIER).is_file() == (comparison.answered is not None)
    cells = comparison.answered.plain.cells if comparison.answered else []
    asked = {cell.modality for cell in cells}
    able = [method for method in METHODS if method.exportable]
    exportable = {m.name for m in able if asked <= set(taken(m, asked))}
    assert exportable <= {contender.name for contender in comparison.contenders}
