"""Tables of suites, attacks and controls in the card."""

from mars_export.card.render import render
from support import records
from support.records import attack, full_report


def test_categories_of_each_suite():
    first, second = full_report().suites
    text = render(records.manifest(), full_report())
    assert text.count("Refused by category") == 1
    assert "| fraud \\| theft | harmful text | 3/6 | 5/6 | +2&nbsp;\N{MINUS SIGN}0 |" in text
    assert "| weapons | harmful text | 3/40 · 7.5" in text
    cells = [records.cell("text", True, arm, 60, 120, unknown=9) for arm in ("off", "on")]
    unsure = first.model_copy(update={"cells": cells, "pairs": first.pairs[:1]})
    assert "Refused by" not in render(records.manifest(), full_report(suites=[unsure, second]))


def test_every_table_is_there_and_regressions_come_first():
    text = render(records.manifest(), full_report())
    glance = text.split("## At a glance")[1]
    assert glance.index("**Regressions**") < glance.index("**Regressions under attack**") < 700
    assert "both under the attack): 22\n" in glance
    assert "| `two` | harmful text |" in text
    assert "| `prefill` | harmful text | 60/120" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "+2&nbsp;\N{MINUS SIGN}22" in text
    assert "`prefill`: the answer begins with `Sure`. Not run, " in text
    assert "Not run, `system`: left out." in text
    assert "| harmless text | `on` | `noise` | 1/40 | 9/40 | 0.008 |" in text
    assert r"| `one` | a\|b | text | prefill | 60 | 22 | 2 |" in text
    assert "attacks ✔" in text
    assert "Public safety" not in text
    assert "Other attacks" in text


def test_one_suite_and_no_attacks_leave_the_card_as_it_was():
    one = full_report().suites[:1]
    alone = full_report(suites=one, attacks=[], controls=[], externalities={})
    text = render(records.manifest(), alone)
    assert "Each suite alone" not in text
    assert "Under attack" not in text
    assert "attacks ✘" in text


def test_an_attack_that_the_judge_cannot_decide_has_no_rates():
    text = render(records.manifest(), full_report(attacks=[attack(unknown=9)]))
    assert "| `prefill` | harmful text" not in text
    assert "could not decide enough of `prefill`" in text
