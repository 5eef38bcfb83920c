"""Tables of suites, attacks and controls in the card."""

from mars_export.card.render import render
from mars_export.evaluation.report import (
    AttackResult,
    CategoryCount,
    Comparison,
    Externalities,
    Externality,
    SuiteResult,
)
from support import records


def attack(**changes):
    off = records.cell("text", True, "off", 60, 120, **changes)
    return AttackResult(
        attack="prefill",
        about="the answer begins with `Sure`",
        draws=1,
        cells=[off, records.cell("text", True, "on", 40, 120)],
        pairs=[records.pair("text", True, (38, 2, 22, 58))],
        against_plain=[],
        regressions={"on": [f"r{i}@prefill" for i in range(22)]},
    )


def categories():
    return [
        CategoryCount(
            category=name, modality="text", harmful=True, n=n, refused={"off": 3, "on": 5},
            newly_refused={"on": 2}, newly_answered={"on": 0},
        )
        for name, n in (("fraud | theft", 6), ("weapons", 40))
    ]  # fmt: skip


def test_categories_of_each_suite():
    first, second = report().suites
    told = first.model_copy(update={"categories": categories()})
    text = render(records.manifest(), report(suites=[told, second]))
    assert text.count("Refused by category") == 1
    assert "| fraud \\| theft | harmful text | 3/6 | 5/6 | +2&nbsp;\N{MINUS SIGN}0 |" in text
    assert "| weapons | harmful text | 3/40 · 7.5" in text
    open_ones = [records.cell("text", True, arm, 60, 120, unknown=9) for arm in ("off", "on")]
    unsure = told.model_copy(update={"cells": open_ones})
    assert "Refused by" not in render(records.manifest(), report(suites=[unsure, second]))


def report(**changes):
    plain = records.report()
    source = plain.suite.model_copy(update={"name": "one", "origin": "known:one"})
    both = [
        SuiteResult(source=source, cells=plain.cells, pairs=plain.pairs, categories=[]),
        SuiteResult(
            source=source.model_copy(update={"name": "two"}), cells=plain.cells[:2],
            pairs=plain.pairs[:1], categories=[],
        ),
    ]  # fmt: skip
    comparison = Comparison(
        first="text", second="noise", arm="on", modality="text", harmful=False, n=40,
        refused_first=1, refused_second=9, only_first=0, only_second=8, difference=0.2, low=0.1,
        high=0.3, p_value=0.0078,
    )  # fmt: skip
    raised = Externality(
        suite="one", category="a|b", variant="prefill",
        **records.pair("text", True, (38, 2, 22, 0)).model_dump(exclude={"n"}), n=60,
    )  # fmt: skip
    values = {
        "suites": both, "attacks": [attack()], "controls": [comparison],
        "attack_regressions": attack().regressions, "skipped": {"system": "left out"},
        "externalities": {"on": Externalities(checked=9, raised=[raised])},
    }  # fmt: skip
    return records.report(**{**values, **changes})


def test_every_table_is_there_and_regressions_come_first():
    text = render(records.manifest(), report())
    glance = text.split("## At a glance")[1]
    assert glance.index("**Regressions**") < glance.index("**Regressions under attack**") < 700
    assert "both under the attack): 22\n" in glance
    assert "| `two` | harmful text |" in text
    assert "| `prefill` | harmful text | 60/120" in text.replace("\N{NO-BREAK SPACE}", " ")
    assert "+2&nbsp;\N{MINUS SIGN}22" in text
    assert "begins with `Sure`." in text
    assert "Not run, `system`: left out." in text
    assert "| harmless text | on | `noise` | 1/40 | 9/40 | 0.008 |" in text
    assert r"| `one` | a\|b | text | prefill | 60 | 22 | 2 |" in text
    assert "attacks ✔" in text
    assert "Public safety" not in text
    assert "Other attacks" in text


def test_one_suite_and_no_attacks_leave_the_card_as_it_was():
    alone = report(suites=report().suites[:1], attacks=[], controls=[], externalities={})
    text = render(records.manifest(), alone)
    assert "Each suite alone" not in text
    assert "Under attack" not in text
    assert "attacks ✘" in text


def test_an_attack_that_the_judge_cannot_decide_has_no_rates():
    text = render(records.manifest(), report(attacks=[attack(unknown=9)]))
    assert "| `prefill` | harmful text" not in text
    assert "could not decide enough of `prefill`" in text
