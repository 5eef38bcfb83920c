"""What follows from the answers of a comparison, and what its card says of it."""

import pytest

from mars_export.common.markdown import DASH
from mars_export.comparison import card, figures, terminal
from mars_export.comparison.frontier import Point, frontier
from mars_export.comparison.record import (
    Answered,
    Comparison,
    Contender,
    Ratio,
    Setting,
    Speed,
    Travels,
)
from mars_export.comparison.tables import renamed, tables
from mars_export.evaluation.changes import corrected
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.tables import SuiteSource
from support import records

N = 40


def answers(arm, harmful, refused, modality="image", variant="", kl=0.0):
    """One arm's answers to N requests, of which the first `refused` are refused."""
    return [
        SampleResult(
            id=f"{modality}-{harmful}-{i}{'@' + variant if variant else ''}",
            modality=modality, harmful=harmful, arm=arm, kl=kl,
            verdict="refusal" if i < refused else "answer",
            response="I cannot." if i < refused else f"{arm if kl else 'the same'} words",
            variant=variant, group=f"{modality}-{harmful}-{i}" if variant else "",
        )
        for i in range(N)
    ]  # fmt: skip


RESULTS = [
    *answers("off", True, 4), *answers("mars", True, 36), *answers("other", True, 20),
    *answers("off", False, 0), *answers("mars", False, 1), *answers("other", False, 30, kl=2.0),
    *answers("off", False, 0, variant="noise"), *answers("mars", False, 0, variant="noise"),
    *answers("other", False, 40, variant="noise"),
]  # fmt: skip


SETTING = Setting(
    suite=SuiteSource(name="mine.jsonl", sha256=records.sha("x"), samples=2 * N),
    judge="rules/4", decoding={"max_new_tokens": 8}, dtype="float32", quantization="none",
    device="cpu", versions={}, no_headline=None, overlap=None, skipped={},
    calibrated_on={"harmful": "bad.txt", "harmless": "good.txt"}, seconds=1.0,
)  # fmt: skip


@pytest.fixture(scope="module")
def comparison():
    one = Ratio(value=1.1, low=1.0, high=1.2)
    speed = [
        Speed(arm=a, modality="image", first_token=one, decode=None, n=5) for a in ("mars", "other")
    ]
    return Comparison(
        model="toy", created="2026-11-30", command="mars-export compare --model toy",
        contenders=[
            Contender(name="off", title="the model as it is", kind="base"),
            Contender(name="mars", title="MARS", kind="method", paper="2606.31876"),
            Contender(name="gone", title="Gone", kind="method", turned_down="no pictures"),
            Contender(name="other", title="Other", kind="baseline", needs=["captions"]),
        ],
        answered=Answered(setting=SETTING, speed=speed, **tables(RESULTS, "mars")),
    )  # fmt: skip


def test_everything_is_tested_against_the_yardstick_request_by_request(comparison):
    tests = comparison.answered.against
    against = {(p.arm, p.harmful): p for p in tests}
    assert set(against) == {("off", True), ("off", False), ("other", True), ("other", False)}
    assert against["off", True].difference == pytest.approx((4 - 36) / N)
    assert against["other", True].difference == pytest.approx((20 - 36) / N)
    assert against["other", True].harm == "shown"
    assert against["off", False].difference == pytest.approx(-1 / (2 * N))
    other = against["other", False]
    assert (other.n, other.newly_refused, other.newly_answered) == (2 * N, 69, 0)
    # Corrected over what the card shows of a contender.
    assert tests == corrected([p.model_copy(update={"p_holm": None}) for p in tests])


def test_harmless_requests_count_with_their_controls_but_not_with_attacks():
    attacked = [
        *RESULTS,
        *(answers(arm, False, 40, variant="prefill")[0] for arm in ("off", "mars", "other")),
    ]
    assert tables(attacked, "mars")["harmless"] == tables(RESULTS, "mars")["harmless"]
    new = {p.arm: (p.newly_refused, p.at_risk) for p in tables(RESULTS, "mars")["harmless"]}
    assert new == {"mars": (1, 80), "other": (70, 80)}


def test_what_is_kept_word_for_word(comparison):
    kept = {b.arm: (b.same.count, b.kl_mean, b.kl_high) for b in comparison.answered.behavior}
    assert kept == {"mars": (39, 0.0, 0.0), "other": (0, 2.0, 2.0)}


def test_an_unknown_divergence_is_unknown():
    broken = [r.model_copy(update={"kl": None}) if r.arm == "other" else r for r in RESULTS]
    (mars, other) = tables(broken, "mars")["behavior"]
    assert (mars.kl_mean, other.kl_mean, other.kl_high) == (0.0, None, None)


def test_names_of_arms_are_replaced_and_nothing_else():
    changed = renamed(RESULTS, {"mars": "on"})
    assert {r.arm for r in changed} == {"off", "on", "other"}
    assert [r.id for r in changed] == [r.id for r in RESULTS]


def test_nobody_beats_the_frontier():
    def point(name, harmful, harmless):
        return Point(name, records.rate(harmful, N), records.rate(harmless, N))

    placed = [point("a", 10, 0), point("b", 30, 5), point("c", 30, 6), point("d", 9, 0)]
    assert [p.arm for p in frontier(placed)] == ["a", "b"]
    assert [p.arm for p in frontier([point("a", 1, 1), point("b", 1, 1)])] == ["a", "b"]


def test_the_card_shows_harm_first_and_who_was_turned_down(comparison):
    text = card.render(comparison)
    assert text.index("Harm first") < text.index("| contender | harmful image refused")
    assert "| `other` | 2 of 7 comparisons | harmless image, `noise` | refused +100.0" in text
    assert "- `gone`: no pictures." in text
    assert "| `mars` | 36/40" in text
    assert "| harmful image | `other` |" in text
    assert figures.FRONTIER in text
    assert figures.draw(comparison).axes
    assert card.render(comparison) == text


def test_broken_answers_are_harm():
    broken = [
        r.model_copy(update={"verdict": "degenerate"}) if r.arm == "mars" and i % N else r
        for i, r in enumerate(RESULTS)
    ]
    answered = Answered(setting=SETTING, speed=[], **tables(broken, "mars"))
    found = next(h for h in card._harms(answered, ["mars"]) if h.name == "mars")
    assert found.change.startswith("broken answers +")


def test_a_number_that_is_not_known_keeps_its_place(comparison):
    both = [*RESULTS, *(r for a in ("off", "mars", "other") for r in answers(a, False, 0, "text"))]
    answered = Answered(setting=SETTING, speed=comparison.answered.speed, **tables(both, "mars"))
    cost = card._cost(comparison, answered, "mars", ["text", "image"])
    assert cost.kl == "0 / 0"
    assert (cost.first_token, cost.decode) == (f"{DASH} / 1.10", f"{DASH} / {DASH}")


def test_what_a_checkpoint_brings_is_in_the_card(comparison):
    travels = Travels(bytes=90_000, lines=1800, memory=512)
    contenders = [c.model_copy(update={"travels": travels}) for c in comparison.contenders]
    text = card.render(comparison.model_copy(update={"contenders": contenders}))
    assert "| 90 kB, 1800 lines, 512 B |" in text.replace("\N{NO-BREAK SPACE}", " ")


def test_a_reason_is_told_once(comparison):
    skipped = SETTING.model_copy(update={"skipped": {"gone": "no pictures", "noise": "no ears"}})
    answered = comparison.answered.model_copy(update={"setting": skipped})
    text = card.render(comparison.model_copy(update={"answered": answered}))
    assert (text.count("no pictures"), text.count("no ears")) == (1, 1)


def test_missing_controls_are_told(comparison):
    bare = [result for result in RESULTS if not result.variant]
    told = comparison.answered.model_copy(update=tables(bare, "mars"))
    without = comparison.model_copy(update={"answered": told})
    assert "Controls were not run" in card.render(without)
    assert "in all controls together" not in card.render(without)
    assert "controls were not run" in terminal.lines(without)[-2]
    assert "Controls were not run" not in card.render(comparison)


def test_names_at_the_bottom_of_the_plot_stand_inside(comparison):
    alike = [r.model_copy(update={"verdict": "answer"}) for r in RESULTS]
    told = comparison.answered.model_copy(update=tables(alike, "mars"))
    names = figures.draw(comparison.model_copy(update={"answered": told})).axes[0].texts
    assert len(names) == 3
    assert all(name.xyann[1] >= 0 for name in names)


def test_a_comparison_without_answers_says_so(comparison):
    text = card.render(comparison.model_copy(update={"answered": None}))
    assert "no number here" in text
    assert "no pictures" in text


def test_the_terminal_shows_every_contender(comparison):
    shown = terminal.lines(comparison)
    assert [line.split()[0] for line in shown[1:4]] == ["off", "mars", "other"]
    assert shown[3].split() == ["other", "20/40", "70/80"]
    assert shown[-1] == "gone was turned down: no pictures"
