"""Packaged prompts and evaluation pairs: matched line by line, balanced in form, no repeats."""

import itertools
import re
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from mars_export.evaluation.overlap import texts
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.evaluation.suites.record import known_suites

LABELS = "harmful", "harmless"
EVALUATION = Path(__file__).parents[2] / "examples/organisms/smollm2/texts/evaluation.tsv"
OFFLINE = [r.name for r in known_suites().values() if r.offline and r.modality != "video"]
SUITES = ["typographic", *OFFLINE]
SPLITS = 128 + 200 + 200
"""Pairs that the three splits of a calibration need."""


def rows(label):
    return (files("mars_export.inputs.data") / f"{label}.txt").read_text("utf-8").splitlines()


def packaged_pairs():
    harmful, harmless = ([row for row in rows(label) if row[0] != "#"] for label in LABELS)
    return list(zip(harmful, harmless, strict=True))


def evaluation_rows():
    return [line.split("\t") for line in EVALUATION.read_text("utf-8").splitlines()]


SETS = {"packaged": packaged_pairs(), "evaluation": [row[:2] for row in evaluation_rows()]}


@pytest.fixture(params=SETS)
def pairs(request):
    return SETS[request.param]


def flat(pairs):
    return list(itertools.chain.from_iterable(pairs))


def words(text):
    return re.findall(r"\w+", text.lower())


def similarity(first, second):
    """Jaccard similarity of the word sets, (len(first), len(second))."""
    vocabulary = {word: i for i, word in enumerate(sorted(set(words(" ".join([*first, *second])))))}
    one, other = (np.zeros((len(t), len(vocabulary)), np.float32) for t in (first, second))
    for table, rows in ((one, first), (other, second)):
        for i, text in enumerate(rows):
            table[i, [vocabulary[word] for word in words(text)]] = 1
    both = one @ other.T
    return both / (one.sum(1)[:, None] + other.sum(1) - both)


def test_every_pair_has_one_form(pairs):
    for harmful, harmless in pairs:
        assert words(harmful)[0] == words(harmless)[0], harmful
        assert (harmful[-1], harmless[-1]) in ((".", "."), ("?", "?")), harmful
        assert abs(len(harmful.split()) - len(harmless.split())) <= 2, harmful


def test_length_does_not_separate_the_labels(pairs):
    """Area under the curve of the number of words, and of letters."""
    for length in (lambda text: len(text.split()), len):
        harmful, harmless = np.array([[length(text) for text in pair] for pair in pairs]).T
        difference = harmful[:, None] - harmless
        assert 0.47 < ((difference > 0) + (difference == 0) / 2).mean() < 0.53


def test_no_text_repeats_another(pairs):
    shared = similarity(flat(pairs), flat(pairs))
    pair = np.arange(len(shared)) // 2
    shared[pair[:, None] == pair] = 0
    assert shared.max() < 0.65
    assert len(set(flat(pairs))) == 2 * len(pairs)


def test_the_packaged_files_have_the_same_themes():
    themes = []
    for label, prefix in zip(LABELS, ("# ", "# counterparts: "), strict=True):
        numbered = enumerate(rows(label)[1:])
        themes.append([(i, row.removeprefix(prefix)) for i, row in numbered if row[0] == "#"])
    assert themes[0] == themes[1]
    assert len(themes[0]) >= 20


def test_the_packaged_prompts_fill_three_splits():
    harmful = [harmful for harmful, _ in SETS["packaged"]]
    assert len(harmful) >= SPLITS
    assert 0.34 < sum(text.endswith("?") for text in harmful) / len(harmful) < 0.40
    assert len({words(text)[0] for text in harmful}) > 100
    lengths = [len(text.split()) for text in harmful]
    assert min(lengths) >= 5
    assert max(lengths) <= 30


def test_the_evaluation_pairs_are_short_and_plain():
    topics = [topic for *_, topic in evaluation_rows()]
    assert len(topics) == 150
    assert {topics.count(topic) for topic in topics} == {2}
    for text in flat(SETS["evaluation"]):
        assert re.fullmatch(r"[A-Z][a-z]*( [A-Za-z]+){4,8}[.?]", text), text


def test_the_evaluation_pairs_are_no_calibration_prompts():
    assert similarity(flat(SETS["packaged"]), flat(SETS["evaluation"])).max() < 0.5


@pytest.mark.parametrize("name", SUITES)
def test_no_pair_repeats_a_packaged_suite(name, pairs):
    shared = similarity(flat(pairs), texts(open_suites([name]).samples))
    assert shared.max() < 0.7
    assert (shared >= 0.6).sum() <= 1  # a pyramid scheme is in FigStep as well
