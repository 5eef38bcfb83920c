"""What no card may say, whatever its records hold."""

import re

import pytest
from huggingface_hub import ModelCard

from mars_export.card.render import render
from mars_export.card.text import MINIMUM_N
from mars_export.common.markdown import code
from support import records

RATE = re.compile(
    r"(?P<count>\d+)/(?P<n>\d+) · "
    r"(?:at\s(?:most|least)\s[\d.]+\s%|(?P<percent>[\d.]+)\s%\s\[[\d.]+,\s[\d.]+\])"
)
"""The only form of a percentage."""

FORBIDDEN = {
    "an attack success rate, which refusals do not tell": r"\bASR\b|attack[ -]success",
    "something unfinished": r"HUMAN-REVIEW|\bTODO\b|\bFIXME\b",
    "a percentage without n and interval": r"\d[\d.]*\s?(?:%|percent)",
}

OF_THE_METHOD = "|".join([
    r"\|\s\d+\s%(?=\s\|)", r"\d+/\d+\s\(at\smost\s[\d.]+\s%\)",
    r"5\s%\sopen", r"95\s%\sconfidence", r"10\s%\squantile",
])  # fmt: skip
"""Shares of the margin, counts with their bound, and the goal, in the numbers of the method."""

AS_BEFORE = {k: (r + lost, 0, 0, new + no) for k, (r, new, lost, no) in records.OUTCOMES.items()}
ALL_REFUSED = {k: (r + lost, new + no, 0, 0) for k, (r, new, lost, no) in records.OUTCOMES.items()}
OTHERS = {"safety-prompt": AS_BEFORE, "other": ALL_REFUSED}
FEW = dict.fromkeys(records.OUTCOMES, (3, 2, 1, 6))
NONE = dict.fromkeys(records.OUTCOMES, (0, 0, 0, 120))
LOSS = {"on": 0.59, "difference": -0.02, "low": -0.035, "high": -0.004, "not_inferior": False}
OTHER_LICENSE = records.base(
    license="other", license_name="example-terms", license_link="https://example.org/terms"
)
CARDS = {
    "plain": render(records.manifest(), records.report()),
    "few requests": render(records.manifest(), records.report(FEW)),
    "no refusals": render(records.manifest(), records.report(NONE)),
    "undecided": render(records.manifest(), records.report(unknown=3)),
    "several arms": render(records.manifest(), records.report(others=OTHERS)),
    "tables": render(records.manifest(), records.full_report()),
    "controls": render(records.manifest(), records.controlled()),
    "harm": render(records.manifest(), records.with_harm(10)),
    "utility": render(records.manifest(), records.report(), utility=records.utility(**LOSS)),
    "not evaluated": render(records.manifest(), None),
    "other license": render(records.manifest(base=OTHER_LICENSE), records.report()),
}


def prose(text):
    """The card's own words: no front matter, and no names, which the template writes as code."""
    text = re.sub(r"^```bash\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    text = re.sub(r"`[^`\n]+`", "", text.split("---\n", 2)[-1])
    return re.sub(r"\b95 % interval", "", RATE.sub("", text))


def faults(text):
    own = re.sub(OF_THE_METHOD, "|", prose(text))
    yield from (what for what, pattern in FORBIDDEN.items() if re.search(pattern, own))
    if any(int(match["n"]) < MINIMUM_N for match in RATE.finditer(text)):
        yield "a percentage of few requests"


@pytest.mark.parametrize("name", CARDS)
def test_what_no_card_says(name):
    assert list(faults(CARDS[name])) == []


@pytest.mark.parametrize(
    "sentence",
    [
        "It refuses 97 % of harmful pictures.",
        "It refuses 97.5% of harmful pictures.",
        "It refuses 97 percent of harmful pictures.",
        "It refuses 117/120 (97.5 %).",
        "Over-refusal is 0 %.",
        "Cooking: 6/12 · 50.0 % [25.4, 74.6].",
        "The ASR falls.",
        "The attack success rate falls.",
        "TODO: say more.",
    ],
)
def test_each_of_them_would_be_found(sentence):
    assert list(faults(f"{CARDS['plain']}\n{sentence}\n"))


@pytest.mark.parametrize("name", CARDS)
def test_the_license_is_the_base_models(name):
    front = ModelCard(CARDS[name], ignore_metadata_errors=False).data
    base = OTHER_LICENSE if name == "other license" else records.base()
    for key in ("license", "license_name", "license_link"):
        assert getattr(front, key, None) == getattr(base, key)


def test_a_card_without_an_evaluation_says_so_first():
    first = CARDS["not evaluated"].split("---\n", 2)[-1].lstrip().splitlines()[0]
    assert first.endswith(": not evaluated")


def test_an_undecided_judge_leaves_no_headline():
    glance = CARDS["undecided"].split("## At a glance")[1].split("\n## ")[0]
    assert "No headline number" in glance
    assert not RATE.search(glance)
    assert "model-index" not in CARDS["undecided"]


def test_a_utility_loss_is_named_at_a_glance():
    glance = CARDS["utility"].split("## At a glance")[1].split("\n## ")[0]
    assert f"{code('mmstar')} {code('accuracy')}" in glance


@pytest.mark.parametrize("name", sorted(CARDS.keys() - {"not evaluated", "undecided"}))
def test_only_benefits_that_the_data_support_are_claimed(name):
    """A claim needs Holm's p at most .05 in the table and enough requests."""
    glance = CARDS[name].split("## At a glance")[1].split("\n## ")[0]
    claims = re.findall(r"\*\*Better\*\*: (.*)", glance)
    table = CARDS[name].split("| p, Holm |")[1].split("</details>")[0]
    for label in {label for claim in claims for label in claim.split(", ")}:
        rows = [line for line in table.splitlines() if line.startswith(f"| {label} `on` ")]
        assert all(row.endswith(" better |") and _p(row) <= 0.05 for row in rows)
    assert claims == [] if name in ("few requests", "no refusals") else claims


def _p(row):
    return float(row.strip("| ").split("|")[-2].replace("<", "").strip())


@pytest.mark.parametrize("name", sorted(CARDS.keys() - {"not evaluated"}))
def test_the_top_takes_two_minutes(name):
    assert records.words_at_the_top(CARDS[name]) <= 350


@pytest.mark.parametrize("name", CARDS)
def test_tables_of_results_are_narrow(name):
    results = CARDS[name].split("## At a glance")[-1].split("\n## What was changed")[0]
    widths = [row.count("|") for row in results.splitlines() if row.startswith("|---")]
    assert all(width <= 6 for width in widths)
