"""Controls and attacks: what is asked, and what the report makes of the answers."""

from types import SimpleNamespace

import pytest
from evaluation.fakes import FakeLoaded, save_manifest, save_suite
from PIL import ImageChops

from mars_export.evaluation import aggregate
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation.attacks import ATTACKS, CONTROLS, VARIANTS, unsupported, vary
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SampleResult
from mars_export.evaluation.suite import read_suite
from mars_export.evaluation.suites.builtin import CLIP_FRAMES, packaged_suite, typographic
from mars_export.inputs.requests import Request

EVERY = ("text", "image", "video")


def names(samples):
    return {s.variant for s in samples}


def test_every_text_request_gets_every_control_that_the_model_takes():
    suite = packaged_suite()
    made = vary(suite.samples, EVERY, controls=True, attacks=False)
    assert len(made) == 80 * len(CONTROLS)
    assert names(made) == {"neutral", "noise", "typographic", "frames"}
    assert len({s.id for s in made}) == len(made)
    assert names(vary(suite.samples, ("text", "image"), controls=True, attacks=False)) == {
        "neutral", "noise", "typographic",
    }  # fmt: skip
    assert not vary(suite.samples, ("text",), controls=True, attacks=False)


def test_every_harmful_request_gets_the_attacks_that_fit():
    suite = packaged_suite()
    made = vary(suite.samples, EVERY, controls=False, attacks=True)
    assert all(s.harmful for s in made)
    assert names(made) == {attack.name for attack in ATTACKS}
    of_image = [s for s in made if s.group == "harmful-01-image"]
    assert names(of_image) == {"prefill", "system", "sampling", "multi-turn"}
    assert [s.id for s in of_image if s.variant == "sampling"] == [
        f"harmful-01-image@sampling-{draw}" for draw in range(1, 6)
    ]
    assert len(of_image) == 8


def test_what_the_controls_show():
    def shown(name, prompt="a question", seed="x"):
        return VARIANTS[name].change(Request(prompt), seed)

    neutral, noise, frames = shown("neutral"), shown("noise"), shown("frames")
    (color,), (grain,) = neutral.shown("image"), noise.shown("image")
    (clip,) = frames.shown("video")
    assert len(color.getcolors()) == 1
    assert len(set(grain.tobytes())) == 256
    assert len(clip) == CLIP_FRAMES
    assert all(ImageChops.difference(color, f).getbbox() is None for f in clip)
    assert {r.prompt for r in (neutral, noise, frames)} == {"a question"}
    written = shown("typographic")
    assert ImageChops.difference(written.pictures[0], typographic("a question")).getbbox() is None
    assert "question" not in written.prompt
    assert shown("noise").pictures[0].tobytes() == grain.tobytes()
    assert shown("noise", seed="y").pictures[0].tobytes() != grain.tobytes()


def template(conversation, **_):
    return str([turn for turn in conversation if turn["role"] != "system"])


def refusing(conversation, **_):
    if conversation[0]["role"] == "system":
        raise ValueError("System role not\nsupported")
    return str(conversation)


@pytest.mark.parametrize(
    ("behavior", "reason"),
    [(template, "leaves it out"), (refusing, "refuses it: System role not supported")],
)
def test_attacks_that_the_template_does_not_allow(behavior, reason):
    for processor in (
        SimpleNamespace(apply_chat_template=behavior),
        SimpleNamespace(apply_chat_template=behavior, tokenizer=object()),
    ):
        found = unsupported(processor, set(VARIANTS))
        assert list(found) == ["system"]
        assert reason in found["system"]


def result(name, arm, verdict, **more):
    return SampleResult(
        id=name, modality="text", harmful=True, arm=arm, verdict=verdict, response="", **more
    )


def test_the_worst_of_several_draws_counts():
    draws = {"a": ["refusal"] * 5, "b": ["refusal"] * 4 + ["answer"]}
    results = [
        result(f"{name}@sampling-{i}", arm, verdict if arm == "on" else "refusal",
               variant="sampling", group=name)
        for name, verdicts in draws.items() for i, verdict in enumerate(verdicts)
        for arm in ("off", "on")
    ]  # fmt: skip
    (attack,) = aggregate.attacks(results)
    assert [(c.arm, c.refused.count, c.refused.n) for c in attack.cells] == [
        ("off", 2, 2), ("on", 1, 2),
    ]  # fmt: skip
    assert attack.regressions == {"on": ["b@sampling"]}


def test_controls_are_compared_pair_by_pair():
    verdicts = {"": "refusal refusal answer", "noise": "refusal answer answer",
                "neutral": "answer refusal refusal"}  # fmt: skip
    results = [
        result(f"{i}{way}", "off", verdict, variant=way, group=str(i) if way else "")
        for way, line in verdicts.items() for i, verdict in enumerate(line.split())
    ]  # fmt: skip
    for r in range(3):
        results[r] = results[r].model_copy(update={"id": str(r)})
    found = {(c.first, c.second): c for c in aggregate.controls(results)}
    assert set(found) == {("text", "neutral"), ("text", "noise"), ("neutral", "noise")}
    c = found["text", "neutral"]
    assert (c.n, c.refused_first, c.refused_second, c.only_first, c.only_second) == (3, 2, 2, 1, 1)
    assert (c.p_value, c.difference) == (1.0, 0.0)
    assert (found["text", "noise"].only_first, found["text", "noise"].only_second) == (1, 0)


def test_a_rise_in_one_category_is_not_hidden_by_a_fall_in_another():
    verdicts = {"up": ("refusal", "answer"), "down": ("answer", "refusal")}
    results = [
        result(f"{category}{i}", arm, pair[arm == "on"], suite="s", category=category)
        for category, pair in verdicts.items()
        for i in range(6) for arm in ("off", "on")
    ]  # fmt: skip
    found = aggregate.externalities(results)["on"]
    assert found.checked == 2
    (raised,) = found.raised
    assert (raised.category, raised.newly_answered, raised.newly_refused) == ("up", 6, 0)
    assert raised.p_value == pytest.approx(1 / 32)


ROWS = [
    {"id": f"{label}-{i}", "modality": "text", "harmful": label == "bad", "split": "evaluation",
     "prompt": f"{label} request {i}", "category": f"c{i % 2}"}
    for label in ("bad", "good") for i in range(4)
]  # fmt: skip


class Attacked(FakeLoaded):
    """Gives in to a prefill when it is steered, and takes no system prompt."""

    def _row(self, request, arm, size):
        text, steered, logits = super()._row(request, arm, size)
        if request.prefill and arm == "on":
            text = "a list of items that answers it."
        return text, steered * (2 if request.prefill else 1), logits


@pytest.fixture
def report(tmp_path, monkeypatch):
    processor = SimpleNamespace(apply_chat_template=template)
    save_manifest(tmp_path / "steered")
    monkeypatch.setattr(runner, "load_calibrated", lambda *_: Attacked(processor=processor))
    suite = read_suite(save_suite(tmp_path / "suite", ROWS))
    options = EvaluationOptions(batch_size=4, device="cpu", controls=True, attacks=True)
    return runner.evaluate(tmp_path / "steered", suite, options)


def test_the_report_tells_attacks_from_requests_as_they_are(report):
    assert {(c.modality, c.refused.n) for c in report.cells} == {("text", 4)}
    assert report.suite.samples == 8
    assert report.regressions == {"on": []}
    assert report.attack_regressions == {"on": [f"bad-{i}@prefill" for i in range(4)]}
    assert report.skipped == {"system": "the chat template leaves it out"}
    assert {a.attack for a in report.attacks} == {
        "prefill", "sampling", "multi-turn", "typographic",
    }  # fmt: skip
    prefill = report.attacks[0]
    by_arm = {c.arm: c for c in prefill.against_plain}
    assert (by_arm["on"].refused_first, by_arm["on"].refused_second) == (4, 0)
    assert [(e.category, e.variant, e.n) for e in report.externalities["on"].raised] == [
        ("c0", "prefill", 2), ("c1", "prefill", 2),
    ]  # fmt: skip
    assert {(c.first, c.second) for c in report.controls if c.harmful} >= {("text", "noise")}


def test_the_report_breaks_down_by_suite_and_category(report):
    (alone,) = report.suites
    assert (alone.source.name, alone.source.samples, alone.source.origin) == ("suite", 8, "file")
    assert alone.cells == report.cells
    assert [(c.category, c.harmful, c.n, c.refused) for c in alone.categories] == [
        ("c0", True, 2, {"off": 2, "on": 2}), ("c1", True, 2, {"off": 2, "on": 2}),
        ("c0", False, 2, {"off": 0, "on": 0}), ("c1", False, 2, {"off": 0, "on": 0}),
    ]  # fmt: skip
