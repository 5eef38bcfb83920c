from dataclasses import replace

import pytest

from mars_export.card.consistency import lint_records
from mars_export.card.data import card_data
from mars_export.card.lint import lint_text
from mars_export.card.render import render
from mars_export.common.errors import ExportError
from mars_export.evaluation.report import SelfCheck
from support import records

MANIFEST, REPORT = records.manifest(), records.report()
CARD = render(MANIFEST, REPORT)


def changed_cell(**fields):
    first, *rest = REPORT.cells
    return [first.model_copy(update=fields), *rest]


def changed_pair(**fields):
    first, *rest = REPORT.pairs
    return [first.model_copy(update=fields), *rest]


HARMFUL_ONLY = {k: v for k, v in records.OUTCOMES.items() if k[0]}
REFUSED = REPORT.cells[0].refused
REPORTS = {
    "self-check": {"self_check": SelfCheck(active=False, detail="no gate opened")},
    "off-and-on": {"cells": [c for c in REPORT.cells if c.arm == "off"]},
    "interval": {"cells": changed_cell(refused=REFUSED.model_copy(update={"low": 0.97}))},
    "verdict-counts": {"cells": changed_cell(verdicts={"answer": 120})},
    "paired": {"pairs": changed_pair(p_value=0.01)},
    "regressions": {"regressions": {"on": []}},
    "same-checkpoint": {"steering_sha256": records.sha("another")},
}


@pytest.mark.parametrize("lint", REPORTS)
def test_reports_that_carry_no_card(lint):
    with pytest.raises(ExportError, match=f"lint `{lint}`"):
        render(MANIFEST, records.report(**REPORTS[lint]))


@pytest.mark.parametrize(
    ("lint", "changes"),
    [
        ("off-and-on", {"cells": [], "pairs": []}),
        ("off-and-on", {"pairs": REPORT.pairs[1:]}),
        ("paired", {"pairs": changed_pair(newly_refused=50)}),
        ("paired", {"pairs": changed_pair(low=0.5, high=0.6)}),
        ("interval", {"cells": changed_cell(refused=REFUSED.model_copy(update={"n": 0}))}),
        ("same-checkpoint", {"created": "2026-02-28T10:00:00+00:00"}),
    ],
)
def test_more_of_them(lint, changes):
    with pytest.raises(ExportError, match=f"lint `{lint}`"):
        lint_records(MANIFEST, records.report(**changes))


def test_harmful_requests_alone_carry_no_card():
    with pytest.raises(ExportError, match="lint `harmful-only`"):
        render(MANIFEST, records.report(HARMFUL_ONLY))


@pytest.mark.parametrize("license", ["", "unknown", " Unknown "])
def test_an_unknown_license_carries_no_card(license):
    with pytest.raises(ExportError, match="lint `license`"):
        render(records.manifest(base=records.base(license=license)), REPORT)


@pytest.mark.parametrize("path", ["steering.safetensors", "modeling_steered.py"])
def test_a_manifest_without_the_key_checksums_carries_no_card(path):
    files = [f for f in MANIFEST.files if f.path != path]
    with pytest.raises(ExportError, match=f"lint `files`.*{path}"):
        render(records.manifest(files=files), REPORT)


def inserted(sentence):
    return CARD.replace("## Limitations\n", f"## Limitations\n\n{sentence}\n", 1)


@pytest.mark.parametrize(
    ("lint", "sentence"),
    [
        ("rate-without-interval", "It refuses 97 % of harmful pictures."),
        ("rate-without-interval", "It refuses 97.5% of harmful pictures."),
        ("rate-without-interval", "It refuses 97 percent of harmful pictures."),
        ("rate-without-interval", "It refuses 117/120 (97.5 %)."),
        ("zero-without-bound", "Over-refusal is 0 %."),
        ("zero-without-bound", "Over-refusal is 0.0 %."),
        ("small-category", "Cooking: 6/12 · 50.0 % [25.4, 74.6]."),
        ("not-attack-success", "The ASR falls."),
        ("not-attack-success", "The attack success rate falls."),
        ("unfinished", "TODO: say more."),
        ("unfinished", "HUMAN-REVIEW"),
    ],
)
def test_sentences_that_no_card_may_hold(lint, sentence):
    with pytest.raises(ExportError, match=f"lint `{lint}`"):
        lint_text(card_data(MANIFEST, REPORT), inserted(sentence))


def test_a_rate_in_the_right_form_is_fine():
    text = inserted("Cooking: 60/120 · 50.0 % [41.1, 58.9], never 0/120 · at most 3.2 %.")
    lint_text(card_data(MANIFEST, REPORT), text)


@pytest.mark.parametrize(
    ("old", "new"),
    [("license: apache-2.0\n", "license: mit\n"), ("license: apache-2.0\n", "")],
)
def test_the_license_in_the_front_matter_is_the_base_models(old, new):
    assert old in CARD
    with pytest.raises(ExportError, match="lint `inherited-license`"):
        lint_text(card_data(MANIFEST, REPORT), CARD.replace(old, new, 1))


def test_a_claim_needs_its_p_value_and_interval():
    data = card_data(MANIFEST, REPORT)
    rows = tuple(replace(row, effect="lowered") for row in data.results.rows)
    with pytest.raises(ExportError, match="lint `unsupported-claim`"):
        lint_text(replace(data, results=replace(data.results, rows=rows)), CARD)


def test_an_undecided_judge_forbids_headlines():
    undecided = card_data(MANIFEST, records.report(unknown=3))
    with pytest.raises(ExportError, match="lint `undecided-headline`"):
        lint_text(undecided, CARD)


def test_a_card_without_a_report_must_say_so():
    with pytest.raises(ExportError, match="lint `first-line`"):
        lint_text(card_data(MANIFEST, None), CARD)
