from types import SimpleNamespace

from mars_export.card.dose import DOSE, plot, sentences
from mars_export.common.plotting import png
from mars_export.evaluation.report import Dose, DosePoint, Push
from mars_export.evaluation.statistics import exact_rate

FACTORS = (0.0, 0.5, 1.0, 1.5, 2.0)


def dose(modality="image", harmful=True, refused=(1, 2, 3, 4, 4), degenerate=0, **changes):
    points = [
        DosePoint(
            factor=factor,
            refused=exact_rate(count, 8),
            degenerate=exact_rate(degenerate if factor == 2 else 0, 8),
            unknown=exact_rate(0, 8),
            log_odds=float(count) if count else None,
        )
        for factor, count in zip(FACTORS, refused, strict=True)
    ]
    push = Push(n=8, median=0.125, high=0.25)
    return Dose(modality=modality, harmful=harmful, points=points, **{"push": push, **changes})


def report(*doses, **skipped):
    return SimpleNamespace(dose=list(doses), skipped=skipped)


def test_the_doses_in_three_sentences():
    made = report(dose("text", False, (0, 0, 0, 0, 1)), dose(degenerate=3))
    refused, broken, pushed = sentences(made)
    assert refused == (
        "Refused with every push times 0, 0.5, 1, 1.5, 2: harmful image 1, 2, 3, 4, 4 of 8; "
        "harmless text 0, 0, 0, 0, 1 of 8."
    )
    assert broken == (
        "Of these 16 answers a dose, degenerate 0, 0, 0, 0, 3 and unknown 0, 0, 0, 0, 0."
    )
    assert "harmful image 12.5 % (25.0 %)" in pushed


def test_what_was_not_measured_is_said():
    (only,) = sentences(report(dose="left out together with the controls"))
    assert only == "Weaker and stronger steering: left out together with the controls."
    assert plot(report()) == {}
    assert "could not be measured" in sentences(report(dose(push=None)))[-1]


def test_the_plot_is_drawn_where_log_odds_are_unknown():
    kinds = [dose("text", True, (0, 0, 0, 0, 0)), dose(), dose("video", False)]
    assert png(plot(report(*kinds))[DOSE]).startswith(b"\x89PNG")
