"""Reports without answers whose parts do not add up: what somebody would edit who wants a better
card."""

import re

import pytest

from mars_export.card.render import render
from mars_export.common.errors import ExportError
from mars_export.evaluation.changes import corrected
from mars_export.evaluation.report import Dose, DosePoint, Part, Protocol, Unleaked
from support import records

MANIFEST = records.manifest()
HIDING = "\n\n<!-- "
"""Begins what no reader of Markdown sees."""
WHOLE = records.full_report()
KIND = {"harmful": False, "modality": "image"}
EVEN = {kind: records.some(outcome, 30) for kind, outcome in records.OUTCOMES.items()}


def refused(report, message):
    with pytest.raises(ExportError, match=rf"^model card not written: .*{message}"):
        render(MANIFEST, report)


def found(items, **where):
    """The place of the one item that has these values."""
    (place,) = (
        i for i, item in enumerate(items) if all(getattr(item, k) == v for k, v in where.items())
    )
    return place


def put(items, place, **update):
    """Items, one of them changed."""
    return [item.model_copy(update=update) if i == place else item for i, item in enumerate(items)]


def with_variant(name, /, **update):
    return WHOLE.model_copy(
        update={"variants": put(WHOLE.variants, found(WHOLE.variants, name=name), **update)}
    )


def test_such_a_report_carries_a_card():
    render(MANIFEST, WHOLE)


def test_new_refusals_are_not_moved_to_another_kind():
    """Two refused pictures become two refused videos, in every table of the whole report."""
    moved = {**records.OUTCOMES, (False, "image"): (0, 0, 0, 120), (False, "video"): (0, 2, 0, 118)}
    fields = {name: records.part(moved)[name] for name in Part.model_fields if name != "advice"}
    ids = {"newly_refused": {"on": ["gained-video-000", "gained-video-001"]}}
    message = "all requests: 120 harmless image answers judged answer in the arm on, but 118 in the"
    refused(records.controlled().model_copy(update=fields | ids), message)


def test_a_suite_is_not_left_out():
    fewer = WHOLE.model_copy(update={"suites": WHOLE.suites[:1]})
    refused(fewer, "all requests: .* in the suites")
    refused(WHOLE.model_copy(update={"suites": []}), "no suite is named")
    few = WHOLE.suite.model_copy(update={"samples": 1})
    refused(WHOLE.model_copy(update={"suite": few}), "1 requests, but 960 in the suites")
    refused(WHOLE.model_copy(update={"n": 900}), "all requests: 900 requests, but 960 were answ")


def test_categories_are_of_their_suite():
    more = records.CategoryResult(
        **records.part({(True, "text"): (0, 30, 0, 0)}), suite="one", category="more"
    )
    first = WHOLE.suites[0].model_copy(update={"categories": [more]})
    message = r"categories of one: 30 harmful text requests that gain it \(refused\) .* 12 in all"
    refused(WHOLE.model_copy(update={"suites": [first, *WHOLE.suites[1:]]}), message)


def test_means_are_those_of_the_suites():
    place = found(WHOLE.means, harmful=True, modality="text", arm="on")
    for means, message in (
        (put(WHOLE.means, place, rate=0.9), "harmful text in the arm on over 2 suites is not 0.9"),
        (put(WHOLE.means, place, suites=3), "harmful text in the arm on over 2 suites"),
        (WHOLE.means[1:], "means over suites are not those"),
        ([], "means over suites are not those"),
    ):
        refused(WHOLE.model_copy(update={"means": means}), message)


@pytest.mark.parametrize("p_holm", [None, 0.0, 1.0])
def test_benefits_are_corrected_over_all_that_was_tested(p_holm):
    pairs = put(WHOLE.pairs, 0, p_holm=p_holm)
    refused(WHOLE.model_copy(update={"pairs": pairs}), "all requests: .* is not Holm's")
    alone = next(v for v in WHOLE.variants if v.name == "noise")  # as if nothing else was tested
    pairs = [pair.model_copy(update={"p_holm": p_holm}) for pair in corrected(alone.pairs)]
    refused(with_variant("noise", pairs=pairs), "controls and attacks: .* is not Holm's")


def test_draws_are_not_dropped():
    sampling = next(v for v in WHOLE.variants if v.name == "sampling")
    refused(with_variant("sampling", draws=4), "sampling is no control of this version")
    for field in ("greedy", "all_draws"):
        refused(with_variant("sampling", **{field: []}), "lack their greedy or drawn answers")
    place = found(sampling.all_draws, **KIND, arm="on")
    better = put(sampling.all_draws, place, **_refusals(7, 32))
    message = "harmless image in the arm on: 0 draws are wrong, which are not of 7 requests"
    refused(with_variant("sampling", all_draws=better), message)
    place = found(sampling.greedy, **KIND, arm="on")
    more = put(sampling.greedy, place, **_refusals(7, 32))
    refused(with_variant("sampling", greedy=more), "greedy answers of sampling: .* in all")


def _refusals(count, n):
    cell = records.cell("image", False, "on", count, n)
    return {"refused": cell.refused, "verdicts": cell.verdicts}


def test_a_control_is_what_its_name_says():
    hidden = "beside noise\n\n<!--"
    for update in ({"about": hidden}, {"kind": "attack"}, {"name": "made-up"}):
        refused(with_variant("noise", **update), "is no .* of this version")
    twice = [*WHOLE.variants, WHOLE.variants[0]]
    refused(WHOLE.model_copy(update={"variants": twice}), "is there twice")


def test_cut_answers_are_not_emptied():
    whole = records.report()
    cells = [c.model_copy(update={"cut": records.rate(9, 120)}) for c in whole.cells]
    render(MANIFEST, records.again(whole, cells=cells))
    on = found(cells, harmful=False, modality="video", arm="on")
    fewer = put(cells, on, cut=records.rate(0, 120))
    message = "the cut answers of harmless video in the arm on do not add up"
    refused(records.again(whole, cells=fewer), message)


def test_leaks_are_those_that_are_named():
    left = Unleaked(**records.part(EVEN), leaked=[])
    near = [str(i) for i in range(540)]
    render(MANIFEST, records.report(unleaked=left, near=near))
    message = "540 requests are left out as leaks, but 1 are near"
    refused(records.report(unleaked=left, near=near[:1]), message)
    other = Unleaked(**records.part(dict.fromkeys(EVEN, (0, 0, 0, 30))), leaked=[])
    refused(records.report(unleaked=other, near=near), "without leaks: .* in all")


def test_doses_are_of_the_same_requests():
    whole = records.report(dose=[_dose()])
    render(MANIFEST, whole)
    dose = whole.dose[0]
    weaker = dose.model_copy(update={"points": dose.points[:-1]})
    refused(whole.model_copy(update={"dose": [weaker]}), "not steered by the same doses")
    message = "9/40 harmless image of the dose 1 are not among all"
    refused(whole.model_copy(update={"dose": [_dose(9)]}), message)


def _dose(on=0):
    points = [
        DosePoint(
            factor=factor, refused=records.rate(count, 40), degenerate=records.rate(0, 40),
            unknown=records.rate(0, 40), log_odds=None,
        )
        for factor, count in ((0.0, 0), (0.5, 0), (1.0, on), (1.5, 1), (2.0, 3))
    ]  # fmt: skip
    return Dose(modality="image", harmful=False, points=points, push=None)


def test_kappa_is_that_of_the_counts():
    found = records.agreement()
    render(MANIFEST, records.report(agreement=found))
    for update, message in (
        ({"kappa": 0.95}, "the kappa of both judges is 0.873, not 0.950"),
        ({"refused_both": 37}, "are impossible"),
        ({"judge": "rules-1"}, "rules-1 is said to be its own second judge"),
        ({"refused_both": 36, "kappa": 0.915, "n": 5000}, "the kappa of both judges is"),
    ):
        refused(records.report(agreement=found.model_copy(update=update)), message)
    refused(records.report(agreement=records.agreement(n=5000)), "read 5000 answers, 2000 refused")


def test_no_words_of_a_report_hide_what_follows():
    report = records.full_report(
        decoding={"do_sample": HIDING}, versions={"torch": HIDING}, device=HIDING, dtype=HIDING,
        skipped={HIDING: HIDING, "system": HIDING}, no_agreement=HIDING, judge=HIDING,
        protocol=Protocol(
            system=HIDING, template_sha256=HIDING, template_options={"a": HIDING}, decoding={}
        ),
    )  # fmt: skip
    suite = report.suite.model_copy(update={"name": HIDING, "sha256": HIDING})
    arms = [arm.model_copy(update={"title": HIDING + arm.name}) for arm in report.arms]
    text = render(MANIFEST, report.model_copy(update={"suite": suite, "arms": arms}))
    body = re.sub(r"`[^`\n]*`", "", text.split("---\n", 2)[2])
    assert "<!--" not in body


def test_a_baseline_that_is_missing_is_said_to_be():
    line = "- A one-line safety prompt in place of steering, as a baseline.\n"
    assert line in render(MANIFEST, records.report())
    beside = records.report(others={"safety-prompt": records.OUTCOMES})
    assert line not in render(MANIFEST, beside)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"low": -0.02}, "a loss of 0.01 of mmstar accuracy is misjudged"),
        ({"low": -0.02, "margin": -1.0}, "is misjudged"),
        ({"low": None}, "is misjudged"),
        ({"difference": 0.01}, "the change of mmstar accuracy is not 0.01"),
        ({"on": 0.7}, "the change of mmstar accuracy is not 0.003"),
    ],
)
def test_a_loss_of_utility_is_not_ruled_out_by_word(change, message):
    found = records.utility(**change)
    with pytest.raises(ExportError, match=message):
        render(MANIFEST, WHOLE, utility=found)


def test_steering_on_is_that_of_the_checkpoint():
    for update in ({"steered": False}, {"steering_sha256": records.sha("another")}):
        arms = put(WHOLE.arms, found(WHOLE.arms, name="on"), **update)
        refused(WHOLE.model_copy(update={"arms": arms}), "off and on are not of this checkpoint")
