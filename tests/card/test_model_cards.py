"""`model_cards/` holds what the code renders today from the data beside each card."""

from pathlib import Path

import pytest

from mars_export.card.data import CardData
from mars_export.card.render import render
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.names import ADAPTIVE_NAME, REPORT_NAME
from mars_export.evaluation.adaptive.record import Adaptive
from mars_export.evaluation.report import Report
from support import records
from support.organisms import WITH_CARDS

ROOT = Path(__file__).parents[2]
CARDS = sorted(path.parent for path in (ROOT / "model_cards").glob("*/steering_manifest.json"))


def test_every_organism_has_a_card():
    assert {f"{name}-MARS" for name in WITH_CARDS} <= {card.name for card in CARDS}


@pytest.mark.parametrize("folder", CARDS, ids=lambda folder: folder.name)
def test_cards_are_up_to_date(folder):
    manifest = Manifest.read(folder)
    report = Report.model_validate_json((folder / REPORT_NAME).read_bytes())
    adaptive = Adaptive.model_validate_json((folder / ADAPTIVE_NAME).read_bytes())
    text = render(manifest, report, folder.name, adaptive=adaptive)
    assert (folder / "README.md").read_text("utf-8") == text
    more = max(0, len({cell.modality for cell in report.cells}) - 3)  # each has rows of its own
    assert records.words_at_the_top(text) <= 350 + 100 * more
    plots = CardData.of(manifest, report, adaptive=adaptive).plots
    assert [path for path in plots if not (folder / path).is_file()] == []
