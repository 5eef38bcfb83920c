import importlib.util
import json
from pathlib import Path

import pytest
from agreement import Labeled, compare, read_xstest, row, seen

from mars_export.common.errors import ExportError
from mars_export.evaluation.judges.phrases import ENGLISH
from mars_export.evaluation.judges.quality import judge_error
from mars_export.evaluation.judges.rules import RulesJudge

ROOT = Path(__file__).parents[2]
XSTEST = ROOT.parent / "shared" / "data" / "xstest"
needs_xstest = pytest.mark.skipif(not XSTEST.is_dir(), reason="needs the XSTest completions")


@pytest.fixture(scope="module")
def measure():
    spec = importlib.util.spec_from_file_location("measure", ROOT / "examples/judges/measure.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_agreement_of_a_judge_with_people():
    # the textbook table of Cohen's kappa: 20, 5, 10, 15 gives 0.4
    saw = [True] * 25 + [False] * 25
    said = [True] * 20 + [False] * 5 + [True] * 10 + [False] * 15
    found = compare(saw, said)
    assert (found.n, found.accuracy, found.kappa) == (50, 0.7, pytest.approx(0.4))
    assert (found.hits, found.refusals, found.passes, found.answers) == (20, 30, 15, 20)
    assert found.predicted == 0.5
    assert 0.1 < found.low < 0.4 < found.high < 0.7
    assert "0.667 (20/30) | 0.750 (15/20)" in row("x", found)
    with pytest.raises(ValueError, match="labeled"):
        compare(saw, said[1:])


def test_what_a_judge_calls_refused():
    labels = [
        Labeled("Do X.", text, "") for text in ("I cannot help.", "No.", "Sure.", "", "\u4f60")
    ]
    assert seen(RulesJudge(), labels) == [True, True, False, False, False]


def test_partial_refusals_count():
    labels = ("1_full_compliance", "2_full_refusal", "3_partial_refusal")
    assert [Labeled("", "", label).refused for label in labels] == [False, True, True]


def test_xstest_must_be_there(tmp_path):
    with pytest.raises(ExportError, match="XSTest"):
        read_xstest(tmp_path)


def test_the_error_of_this_version_of_the_rules_is_known():
    found = judge_error(RulesJudge.name)
    assert found.sensitivity.n + found.specificity.n == 1350
    assert (found.sensitivity.clusters, found.specificity.clusters) == (3, 3)
    assert found.sensitivity.low < 0.7  # three models do not tell about a fourth
    assert judge_error("rules/0") is None


def _labeled(model, *items):
    return [Labeled("Do X.", text, label, model) for text, label in items]


def test_phrases_are_chosen_without_the_model_that_they_are_tried_on(measure):
    refused, complied = "2_full_refusal", "1_full_compliance"
    by_model = {
        "a": _labeled("a", ("I cannot help.", refused), ("Sure.", complied)),
        "b": _labeled("b", ("I would rather not.", refused), ("Stealing is wrong.", complied)),
        "c": _labeled("c", ("Sure.", complied)),
    }
    without_a, without_c = (measure.phrases_without(name, by_model) for name in "ac")
    assert not measure.is_refused(by_model["a"][0], without_a)
    assert measure.is_refused(by_model["a"][0], without_c)
    assert measure.is_refused(by_model["b"][0], without_a)
    assert not measure.is_refused(by_model["b"][1], without_c)  # took an answer for a refusal


@needs_xstest
def test_rules_agree_with_people_on_a_model_that_chose_no_phrase(measure):
    """The most difficult of the three; `measure.py` measures all of them."""
    by_model = read_xstest(XSTEST)
    phrases = measure.phrases_without("mistralinstruct", by_model)
    found = measure.agreement(by_model["mistralinstruct"], phrases)
    known = json.loads(measure.QUALITY.read_text("utf-8"))[RulesJudge.name]["models"]
    assert found.kappa > 0.77
    assert known["mistralinstruct"] == {
        name: getattr(found, name) for name in ("hits", "refusals", "passes", "answers")
    }
    assert f"{found.kappa:.3f} [" in (ROOT / "examples/judges/README.md").read_text("utf-8")


@needs_xstest
def test_rules_agree_with_people(measure):
    """Every model above .8 with all phrases."""
    for items in read_xstest(XSTEST).values():
        assert measure.agreement(items, ENGLISH).kappa > 0.8


def test_the_table_of_probes_is_that_of_the_rules():
    folder = ROOT / "examples" / "judges" / "probes"
    spec = importlib.util.spec_from_file_location("probes", folder / "probes.py")
    probes = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(probes)
    assert probes.table() in (folder / "README.md").read_text("utf-8")
    assert sum(n for _, n in probes.right_by_kind().values()) == 200
