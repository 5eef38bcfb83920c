"""Utility in the card: table, status, and what is said at a glance."""

import pytest

from mars_export.card.render import render, write_card
from mars_export.common.errors import ExportError
from mars_export.common.names import UTILITY_NAME
from support import records

MANIFEST, REPORT = records.manifest(), records.report()
OPEN = {"on": 0.59, "difference": -0.02, "low": -0.035, "high": -0.004, "not_inferior": False}


def test_utility_is_shown():
    text = render(MANIFEST, REPORT, utility=records.utility())
    assert "utility ✔" in text
    assert "Utility on general benchmarks" not in text
    assert "ruled out for 1 of 1 metrics" in text
    row = next(line for line in text.splitlines() if line.startswith("| `mmstar` `accuracy`, 400"))
    assert "| 0.610 → 0.613 |" in row
    assert "no loss above 0.01" in row
    assert "| `mmstar` refusals, 400 | 1 → 3 | +2 |" in text


def test_without_it_the_card_says_so():
    text = render(MANIFEST, REPORT)
    assert "utility ✘" in text
    assert "## Utility" not in text


@pytest.mark.parametrize(
    ("changes", "verdict"),
    [
        (OPEN, "a loss above 0.01 is not ruled out"),
        (OPEN | {"high": -0.012}, "loses more than 0.01"),
        (
            {"on": 0.61, "difference": 0.0, "low": None, "high": None, "not_inferior": None},
            "a loss above 0.01 is not ruled out",
        ),
    ],
)
def test_a_loss_is_named_at_a_glance(changes, verdict):
    utility = records.utility(**changes)
    text = render(MANIFEST, REPORT, utility=utility)
    glance = text.split("## At a glance")[1].split("\n## ")[0]
    assert "not ruled out for `mmstar` `accuracy`" in glance
    assert verdict in text


def test_utility_of_other_tensors(tmp_path):
    folder = tmp_path / "tiny-MARS"
    (folder / "evaluation").mkdir(parents=True)
    (folder / "steering_manifest.json").write_text(MANIFEST.model_dump_json())
    path = folder / UTILITY_NAME
    path.write_text(records.utility(records.sha("another")).model_dump_json())
    with pytest.raises(ExportError, match="other steering tensors"):
        write_card(folder)
    path.write_text("{}")
    with pytest.raises(ExportError, match="measure utility of the directory again"):
        write_card(folder)
    assert not (folder / "README.md").exists()
