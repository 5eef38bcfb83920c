"""Suites and their harmless partners: no length and no first word tells the two apart."""

import math
import re
from collections import Counter
from pathlib import Path

import pytest

from mars_export.evaluation.suites.builtin import packaged_suite
from mars_export.evaluation.suites.catalog import DEFAULT, open_suites

PAIRS = {
    "harmbench": "harmbench-harmless",
    "strongreject": "strongreject-harmless",
    "ailuminate-matched": "ailuminate-harmless",
    "figstep": "figstep-harmless",
    "xstest-unsafe": "xstest",
    "counterfactual": "counterfactual-harmless",
}
BOUND = 0.65
FOLDS = 10
DOCS = Path(__file__).parents[2] / "docs" / "evaluation.md"


def texts(name):
    """(pair, words) of every request that has a partner."""
    return [(s.kin, s.intent or s.prompt) for s in open_suites([name]).samples if not s.advice]


def packaged(harmful):
    """The same of the suite that is run by default, whose ids number the pairs."""
    samples = [s for s in packaged_suite().samples if s.modality == "text"]
    return [(s.id.split("-")[1], s.prompt) for s in samples if s.harmful == harmful]


def auc(harmful, harmless):
    """Probability that a harmful request scores higher, ties half; the worse direction."""
    ranked = Counter(harmless)
    below = 0
    place = {}
    for value in sorted({*harmful, *ranked}):
        place[value] = below + ranked[value] / 2
        below += ranked[value]
    total = sum(place[value] for value in harmful) / (len(harmful) * len(harmless))
    return max(total, 1 - total)


def held_out(harmful, harmless, features):
    """AUC of a naive Bayes classifier that is never asked about a pair that it was made from."""
    pairs = sorted({pair for pair, _ in harmful + harmless})
    fold = {pair: index % FOLDS for index, pair in enumerate(pairs)}
    counts = [[Counter() for _ in range(FOLDS)] for _ in range(2)]
    for label, requests in enumerate((harmless, harmful)):
        for pair, words in requests:
            counts[label][fold[pair]].update(features(words))
    whole = [sum(label, Counter()) for label in counts]
    size = len(whole[0] | whole[1])
    rest = [[total - part for part in label] for total, label in zip(whole, counts, strict=True)]

    def score(pair, words):
        good, bad = (label[fold[pair]] for label in rest)
        share = math.log((good.total() + size) / (bad.total() + size))
        return sum(share + math.log((bad[w] + 1) / (good[w] + 1)) for w in features(words))

    return auc([score(*r) for r in harmful], [score(*r) for r in harmless])


def opening(text):
    return [(text.split()[0].lower(), "?" in text)]


def bag(text):
    return set(re.findall(r"\w+", text.lower()))


def table():
    """Name -> the three numbers that the documentation gives for a suite."""
    rows = (line.split("|") for line in DOCS.read_text("utf-8").splitlines())
    return {
        row[1].strip().strip("`"): [float(cell) for cell in row[3:6]]
        for row in rows
        if len(row) == 7 and row[1].strip().strip("`") in {*PAIRS, DEFAULT}
    }


@pytest.mark.parametrize("name", [*PAIRS, DEFAULT])
def test_length_and_first_word_do_not_tell_a_suite_from_its_partners(name):
    if name == DEFAULT:
        harmful, harmless = packaged(True), packaged(False)
    else:
        harmful, harmless = texts(name), texts(PAIRS[name])
    assert {pair for pair, _ in harmful} >= {pair for pair, _ in harmless}
    length = auc([len(t.split()) for _, t in harmful], [len(t.split()) for _, t in harmless])
    first = held_out(harmful, harmless, opening)
    words = held_out(harmful, harmless, bag)
    assert max(length, first) <= BOUND
    assert [round(value, 2) for value in (length, first, words)] == table()[name]


def test_advice_is_marked_and_has_no_partners():
    samples = open_suites(["figstep"]).samples
    advice = {s.category for s in samples if s.advice}
    assert advice == {"Legal Opinion", "Financial Advice", "Health Consultation"}
    partners = {s.kin for s in open_suites(["figstep-harmless"]).samples}
    assert partners == {s.kin for s in samples if not s.advice}
    assert sum(s.advice for s in open_suites(["ailuminate"]).samples) == 100
    assert not any(s.advice for s in open_suites(["ailuminate-matched"]).samples)


def test_a_clip_and_a_picture_of_one_prompt_are_one_cluster():
    kin = [[s.kin for s in open_suites([name]).samples] for name in ("figstep", "figstep-video")]
    assert kin[0] == kin[1]
    assert len(set(kin[0])) == 500
