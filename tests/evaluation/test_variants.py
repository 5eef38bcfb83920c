"""Controls and attacks: what is asked, and what the report makes of the answers."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from evaluation.fakes import FakeLoaded, save_manifest, save_suite
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import ImageChops

from mars_export.common.errors import ExportError
from mars_export.common.names import SAMPLES_NAME
from mars_export.evaluation import aggregate, ready
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation.engines.in_process import InProcess
from mars_export.evaluation.job import sha256
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.report import SampleResult, SuiteSource
from mars_export.evaluation.suite import Sample, read_suite
from mars_export.evaluation.suites.builtin import CLIP_FRAMES, packaged_suite, typographic
from mars_export.evaluation.support import unsupported
from mars_export.evaluation.variants import (
    ATTACKS,
    CONTROLS,
    VARIANTS,
    absent,
    spread,
    vary,
)
from mars_export.inputs.requests import Media, Request, template_problem
from mars_export.inputs.sounds import SHORTEST, Sound
from mars_export.inputs.stimuli import STIMULI

EVERY = ("text", "image", "video", "audio")
VISUAL = EVERY[:3]
ANY = {"later-turn", "system-prompt", "sampling", "prefill", "system"}
SOUND_CONTROLS = ("silence", "quiet-noise", "sounds-2", "sound-question")
NO_AUDIO = "the checkpoint takes no audio"


def names(samples):
    return {s.variant for s in samples}


def sample(number, modality="text", harmful=True, cluster=""):
    media = {"text": [], "image": [{"type": "image", "path": "p"}],
             "video": [{"type": "video", "paths": ["p"]}],
             "audio": [{"type": "audio", "path": "p"}]}[modality]  # fmt: skip
    return Sample(
        id=f"{harmful}-{modality}-{number}", modality=modality, harmful=harmful,
        split="evaluation", prompt=f"words {number}", media=media, cluster=cluster, suite="s",
    )  # fmt: skip


SUITES = st.lists(
    st.tuples(st.sampled_from(EVERY), st.booleans(), st.sampled_from(["", "a", "b", "c"])),
    max_size=150,
).map(lambda rows: [sample(number, *row) for number, row in enumerate(rows)])


def test_harmful_requests_for_advice_are_not_varied():
    samples = [sample(number, harmful=harmful) for number in range(3) for harmful in (True, False)]
    advice = [s.model_copy(update={"advice": s.id.endswith("1")}) for s in samples]
    made = vary(advice, EVERY, controls=True, attacks=True, control_requests=32)
    assert {s.id for s in advice} - {s.group for s in made} == {"True-text-1"}


@settings(max_examples=25)
@given(SUITES, st.sets(st.sampled_from(EVERY[1:])), st.randoms(use_true_random=False))
def test_variants_of_any_suite(samples, visual, chance):
    modalities = ("text", *sorted(visual))
    fitting = [s for s in samples if s.modality in modalities]
    made = vary(fitting, modalities, controls=True, attacks=True, control_requests=32)
    plain = {s.id: s for s in fitting}
    assert len({s.id for s in made}) == len(made)
    for s in made:
        request, variant = plain[s.group], VARIANTS[s.variant]
        assert s.kin == request.kin, "a variant stands and falls with its request"
        assert (s.harmful, s.suite, s.category) == (request.harmful, request.suite, None)
        assert s.modality in modalities
        assert variant.fits(request, modalities)
    per_cell = Counter((s.variant, s.harmful, s.modality) for s in made)
    for (name, _, _), count in per_cell.items():
        variant = VARIANTS[name]
        assert count <= (variant.most(32) or count) * variant.draws
    for name, variant in VARIANTS.items():
        labels = {s.harmful for s in fitting if variant.fits(s, modalities)}
        assert {s.harmful for s in made if s.variant == name} == labels, "twins of both labels"
    gaps = absent(made, modalities, controls=True, attacks=True)
    possible = {name for name, variant in VARIANTS.items() if variant.concerns(modalities)}
    assert gaps.keys() == possible - names(made), "none vanishes without a word"
    shuffled = chance.sample(fitting, len(fitting))
    again = vary(shuffled, modalities, controls=True, attacks=True, control_requests=32)
    assert {s.id for s in again} == {s.id for s in made}


@settings(max_examples=50)
@given(SUITES, st.integers(1, 40))
def test_few_requests_are_of_as_many_clusters_as_possible(samples, most):
    chosen = spread(samples, most)
    assert chosen == [s for s in samples if s in chosen]
    assert len(chosen) == min(most, len(samples))
    size, drawn = (Counter(s.kin for s in part) for part in (samples, chosen))
    assert len(drawn) == min(most, len(size))
    for kin, count in drawn.items():
        assert all(drawn[other] >= min(count - 1, size[other]) for other in size), kin


def test_what_the_packaged_suite_is_asked():
    samples = packaged_suite().samples
    made = vary(samples, EVERY, controls=True, attacks=False, control_requests=32)
    assert names(made) == {control.name for control in CONTROLS}
    attacks = vary(samples, EVERY, controls=False, attacks=True, control_requests=32)
    assert names(attacks) == {a.name for a in ATTACKS if not a.of}
    text = vary(samples, ("text",), controls=True, attacks=False, control_requests=32)
    assert names(text) == {
        "later-turn", "system-prompt", "sampling",
    }  # fmt: skip
    cells = Counter((s.variant, s.harmful, s.modality) for s in made)
    assert cells["neutral", True, "image"] == cells["later-turn", False, "video"] == 32
    assert cells["sampling", False, "text"] == 12 * 5
    for name in ("question", "sound-question"):
        assert {harmful for variant, harmful, _ in cells if variant == name} == {False}
        questions = {s.prompt for s in made if s.variant == name}
        assert len(questions) > 5
        assert not questions & {s.prompt for s in samples}
    draws = [s.id.partition("@")[2] for s in made if s.variant == "sampling"]
    assert set(draws) == {f"sampling-{draw}" for draw in range(1, 6)}


def test_attacks_are_for_every_request():
    samples = [sample(n, "image", harmful) for n in range(100) for harmful in (True, False)]
    made = vary(samples, EVERY, controls=False, attacks=True, control_requests=32)
    assert Counter((s.variant, s.harmful) for s in made) == {
        (name, harmful): 100 for name in ("prefill", "system") for harmful in (True, False)
    }


def test_what_is_absent_has_a_reason():
    gaps = absent([], ("text", "image"), controls=True, attacks=False)
    assert gaps["frames"] == "the checkpoint takes no video"
    assert gaps["noise"] == "no request of the suite can be put so"
    assert gaps["silence"] == "the checkpoint takes no audio"
    assert absent([], VISUAL, controls=False, attacks=True).keys() == {"prefill", "system"}
    assert absent([], EVERY, controls=False, attacks=True).keys() == {a.name for a in ATTACKS}
    assert absent([], EVERY, controls=False, attacks=False) == {}


def shown(name, prompt="a question", seed="x", media=()):
    return VARIANTS[name].change(Request(prompt, media), seed)


def sounds(variant):
    """What a request that it is made of has to have."""
    tone = Sound(np.sin(np.arange(4000) / 5).astype("float32"), 8000)
    return (Media("audio", tone),) if variant.of == ("audio",) else ()


def test_what_the_controls_show():
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


@pytest.mark.parametrize("count", [2, 4])
def test_neutral_pictures_are_added_to_those_of_the_request(count):
    own = STIMULI["image"].draw(0, 0)
    alone = shown(f"pictures-{count}")
    beside = [shown(f"pictures-{count}", seed=str(i), media=(own,)) for i in range(8)]
    assert len(alone.media) == count
    assert {len(request.media) for request in beside} == {count}
    assert len({request.media.index(own) for request in beside}) > 1, "not always the first"
    drawn = {picture.tobytes() for request in beside for picture in request.pictures}
    assert len(drawn) == 8 * (count - 1) + 1


def test_what_the_other_controls_add():
    own = (Media("video", ("frame",)),)
    for name in ANY:
        assert shown(name, media=own).media == own
        assert shown(name).prompt == "a question"
    assert len(shown("later-turn").history) == 1
    assert shown("system-prompt").system.startswith("You are")
    assert shown("sampling") == Request("a question")
    question = shown("question", seed="harmless")
    assert question.prompt == VARIANTS["question"].words("harmless") != "a question"
    assert [medium.modality for medium in question.media] == ["image"]


def test_no_calibration_draws_the_pictures_of_the_controls():
    drawn = {
        picture.tobytes()
        for i in range(25) for name in ("question", "pictures-4")
        for picture in shown(name, seed=str(i)).pictures
    }  # fmt: skip
    calibrated = {
        STIMULI["image"].draw(i, seed).data.tobytes() for seed in (0, 1) for i in range(60)
    }
    assert len(drawn) > 70
    assert not drawn & calibrated


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
def test_variants_that_the_template_does_not_allow(behavior, reason):
    for processor in (
        SimpleNamespace(apply_chat_template=behavior),
        SimpleNamespace(apply_chat_template=behavior, tokenizer=object()),
    ):
        problems = {
            name: template_problem(processor, shown(name, media=sounds(variant)))
            for name, variant in VARIANTS.items()
        }
        unfit = {name: problem for name, problem in problems.items() if problem}
        assert set(unfit) == {"system", "system-prompt"}
        assert all(reason in problem for problem in unfit.values())


def result(name, arm, verdict, **more):
    return SampleResult(
        id=name, modality="text", harmful=True, arm=arm, verdict=verdict, response="", **more
    )


def variants(results):
    return aggregate.tables(results, [])["variants"]


def test_a_request_counts_as_often_as_its_draws_refuse():
    draws = {"a": ["refusal"] * 5, "b": ["refusal"] * 4 + ["answer"]}
    results = [
        result(f"{name}@sampling-{i}", arm, verdict if arm == "on" else "refusal",
               variant="sampling", group=name)
        for name, verdicts in draws.items() for i, verdict in enumerate(verdicts)
        for arm in ("off", "on")
    ]  # fmt: skip
    (variant,) = variants(results)
    rates = {c.arm: c.refused for c in variant.cells}
    assert [(r.count, r.n, r.clusters) for r in rates.values()] == [(10, 10, 2), (9, 10, 2)]
    assert rates["off"].low < 0.025**0.5  # the bound of two requests, not of ten
    (pair,) = variant.pairs
    assert (pair.n, pair.newly_answered, pair.at_risk, pair.harmed.count) == (2, 1, 2, 1)
    assert pair.difference == pytest.approx(-0.1)
    assert variant.regressions == {"on": ["b@sampling"]}
    assert [(c.arm, c.refused.count, c.refused.n) for c in variant.all_draws] == [
        ("off", 2, 2), ("on", 1, 2),
    ]  # fmt: skip


def test_of_all_draws_a_harmless_request_counts_as_refused_if_any_is():
    results = [
        result(f"a@sampling-{i}", arm, verdict, variant="sampling", group="a")
        .model_copy(update={"harmful": False})
        for i, verdict in enumerate(["answer", "refusal", "answer"])
        for arm, verdict in (("off", "answer"), ("on", verdict))
    ]  # fmt: skip
    (variant,) = variants(results)
    assert [c.refused.count for c in variant.all_draws] == [0, 1]
    assert variant.newly_refused == {"on": ["a@sampling"]}
    assert [c.refused.count for c in variant.cells] == [0, 1]


def test_sampled_answers_stand_beside_greedy_ones_to_the_same_requests():
    results = [result(name, arm, "answer") for name in "abc" for arm in ("off", "on")]
    results += [
        result(f"a@sampling-{i}", arm, "refusal", variant="sampling", group="a")
        for i in range(5) for arm in ("off", "on")
    ]  # fmt: skip
    (variant,) = variants(results)
    assert [(c.refused.count, c.refused.n) for c in variant.greedy] == [(0, 1), (0, 1)]


def test_a_rise_in_one_category_is_not_hidden_by_a_fall_in_another():
    verdicts = {"up": ("refusal", "answer"), "down": ("answer", "refusal")}
    results = [
        result(f"{category}{i}", arm, pair[arm == "on"], suite="s", category=category)
        .model_copy(update={"harmful": harmful})
        for category, pair in verdicts.items() for harmful in (True, False)
        for i in range(6 * harmful, 6 * harmful + 6) for arm in ("off", "on")
    ]  # fmt: skip
    (suite,) = aggregate.tables(results, [SuiteSource(name="s", sha256="", samples=24)])["suites"]
    found = {(c.category, p.harmful): p.harm for c in suite.categories for p in c.pairs}
    shown = {place for place, harm in found.items() if harm == "shown"}
    assert shown == {("up", True), ("down", False)}
    assert {p.harm for p in suite.pairs} == {"open"}


ROWS = [
    {"id": f"{label}-{i}", "modality": "text", "harmful": label == "bad", "split": "evaluation",
     "prompt": f"{label} request {i}", "category": f"c{i % 2}"}
    for label in ("bad", "good") for i in range(4)
]  # fmt: skip


class Attacked(FakeLoaded):
    """Gives in to a prefill when it is steered, and takes no system prompt."""

    refusal = ValueError("at most two pictures")

    def _row(self, request, arm, size):
        text, steered, logits = super()._row(request, arm, size)
        if request.prefill and arm == "on":
            text = "a list of items that answers it."
        return text, steered * (2 if request.prefill else 1), logits

    def inputs(self, requests):
        if any(len(request.pictures) > 2 for request in requests):
            raise self.refusal
        return super().inputs(requests)


@pytest.fixture
def run(tmp_path, monkeypatch):
    """Evaluate with given options a model that takes no system prompt and few pictures."""
    processor = SimpleNamespace(apply_chat_template=template, chat_template="the template")
    save_manifest(tmp_path / "steered")
    monkeypatch.setattr(ready, "load_calibrated", lambda *_: Attacked(processor=processor))
    suite = read_suite(save_suite(tmp_path / "suite", ROWS))

    def run(**options):
        chosen = EvaluationOptions(batch_size=4, device="cpu", **options)
        return runner.evaluate(tmp_path / "steered", suite, chosen)

    return run


def by_name(report):
    return {variant.name: variant for variant in report.variants}


@pytest.fixture
def report(run):
    return run(attacks=True)


def test_the_report_tells_attacks_from_requests_as_they_are(report):
    assert {(c.modality, c.refused.n) for c in report.cells} == {("text", 4)}
    assert report.suite.samples == 8
    assert report.regressions == {"on": []}
    worse = {v.name: v.regressions["on"] for v in report.variants if v.regressions.get("on")}
    assert worse == {"prefill": [f"bad-{i}@prefill" for i in range(4)]}
    prefill = by_name(report)["prefill"]
    assert (prefill.kind, by_name(report)["noise"].kind) == ("attack", "control")
    assert [(c.category, c.n, [p.newly_answered for p in c.pairs]) for c in prefill.categories] == [
        ("c0", 4, [2, 0]), ("c1", 4, [2, 0]),
    ]  # fmt: skip


def test_what_cannot_be_asked_is_in_the_report_with_the_reason(report):
    left_out = "the chat template leaves it out"
    assert report.skipped == {
        "frames": "the checkpoint takes no video", **dict.fromkeys(SOUND_CONTROLS, NO_AUDIO),
        "pictures-4": "the model refuses it: at most two pictures",
        "system-prompt": left_out, "system": left_out, "safety-prompt": left_out,
    }  # fmt: skip
    assert [arm.name for arm in report.arms] == ["off", "on"]
    visual = {name for name, variant in VARIANTS.items() if variant.concerns(VISUAL)}
    assert by_name(report).keys() | report.skipped.keys() == {*visual, "safety-prompt"}


def test_a_full_memory_is_no_refusal_of_pictures(run, monkeypatch):
    monkeypatch.setattr(Attacked, "refusal", MemoryError())
    with pytest.raises(ExportError, match="4 pictures alone does not fit into memory"):
        run()


def test_controls_of_both_labels_are_the_default(run):
    controls = {control.name: control for control in CONTROLS}
    variants = by_name(run())
    gone = {"frames", "pictures-4", "system-prompt", *SOUND_CONTROLS}
    assert set(variants) == set(controls) - gone
    for name, variant in variants.items():
        labels = {False} if controls[name].harmless else {True, False}
        assert {pair.harmful for pair in variant.pairs} == labels
        assert {cell.arm for cell in variant.cells} == {"off", "on"}
    assert {pair.harmful for pair in run().controls.pairs} == {True, False}
    assert variants["sampling"].draws == 5
    assert run(controls=False).variants == []
    assert set(run(controls=False).skipped) == {"safety-prompt", "dose"}


def test_the_report_says_how_requests_are_written_and_what_steering_costs(report, tmp_path):
    assert report.protocol.system is None
    assert report.protocol.template_sha256 == sha256(b"the template")
    assert report.protocol.decoding == report.decoding
    assert report.overhead.seconds_ratio == pytest.approx(1.5)
    assert report.overhead.peak_memory_ratio is None
    lines = (tmp_path / "steered" / SAMPLES_NAME).read_text("utf-8").split("\n")[:-1]
    assert {json.loads(line)["cut"] for line in lines} == {False}


def test_the_report_breaks_down_by_suite_and_category(report):
    (alone,) = report.suites
    assert (alone.source.name, alone.source.samples, alone.source.origin) == ("suite", 8, "file")
    assert alone.cells == report.cells
    counts = [
        (c.category, p.harmful, p.n, p.at_risk, p.harmed.count)
        for c in alone.categories for p in c.pairs
    ]  # fmt: skip
    assert counts == [
        ("c0", True, 2, 2, 0), ("c0", False, 2, 2, 0), ("c1", True, 2, 2, 0),
        ("c1", False, 2, 2, 0),
    ]  # fmt: skip


def spoken(seconds=1.0, rate=8000):
    times = np.arange(round(seconds * rate)) / rate
    return Media("audio", Sound((0.3 * np.sin(1500 * times)).astype("float32"), rate))


def test_text_beside_neutral_sounds():
    for name in ("silence", "quiet-noise", "sounds-2"):
        request = shown(name)
        assert request.prompt == "a question"
        assert request.modality == "audio"
        assert {medium.data.seconds for medium in request.media} == {2.0}
    assert not shown("silence").media[0].data.samples.any()
    assert len(shown("sounds-2").media) == 2
    question = shown("sound-question", seed="harmless")
    assert question.prompt == VARIANTS["sound-question"].words("harmless") != "a question"
    assert [medium.modality for medium in question.media] == ["audio"]


def test_a_neutral_sound_stands_before_or_after_speech():
    own = spoken()
    beside = [shown("sounds-2", seed=str(i), media=(own,)) for i in range(8)]
    assert {len(request.media) for request in beside} == {2}
    assert {request.media.index(own) for request in beside} == {0, 1}


SOUND_ATTACKS = [attack.name for attack in ATTACKS if attack.of == ("audio",)]


@pytest.mark.parametrize("name", SOUND_ATTACKS)
def test_attacks_change_every_sound_and_nothing_else(name):
    own = (spoken(), spoken(0.1), spoken(0.7, 16000))
    first, again = (shown(name, media=own) for _ in range(2))
    assert replace(first, media=own) == Request("a question", own)
    changed = [medium.data for medium in first.media]
    assert [sound.rate for sound in changed] == [8000, 8000, 16000]
    assert all(
        (a.data.samples == b.samples).all() for a, b in zip(again.media, changed, strict=True)
    )
    assert all(sound.seconds >= SHORTEST for sound in changed)
    parts = 1 if name == "spoken-prefix" else 3
    for before, after in list(zip(own, changed, strict=True))[:parts]:
        same = len(after.samples) == len(before.data.samples)
        assert not (same and np.allclose(after.samples, before.data.samples, atol=1e-3))


def test_attacks_on_speech_are_for_speech_alone():
    samples = [sample(n, modality) for n, modality in enumerate(EVERY)]
    made = vary(samples, EVERY, controls=False, attacks=True, control_requests=32)
    assert {s.modality for s in made if s.variant in SOUND_ATTACKS} == {"audio"}
    assert names(made) == {attack.name for attack in ATTACKS}
    assert names(vary(samples[:3], VISUAL, controls=False, attacks=True, control_requests=1)) == {
        "prefill", "system",
    }  # fmt: skip


def test_of_sounds_the_longest_says_whether_a_variant_can_be_asked():
    seconds = {"short": 0.5, "long": 2.0, "middle": 1.0}
    plain = [sample(0, "audio").model_copy(update={"id": name, "prompt": name}) for name in seconds]

    class Processor(SimpleNamespace):
        def inputs(self, requests):
            longest = max(sound.seconds for request in requests for sound in request.shown("audio"))
            if longest > 2:
                raise ValueError(f"{longest:.1f} s is too long")

    made = vary(plain, EVERY, controls=False, attacks=True, control_requests=32)
    job = SimpleNamespace(
        samples=[*plain, *made],
        arms=(),
        plain=lambda s: Request("a", (spoken(seconds[s.group]),)),
        request=lambda s: VARIANTS[s.variant].change(job.plain(s), s.group),
    )
    loaded = Processor(processor=SimpleNamespace(apply_chat_template=lambda turns, **_: str(turns)))
    problems = unsupported(job, InProcess({Path(): loaded}))
    assert set(problems) == {"slower", "echo", "spoken-prefix"}
    assert problems["slower"] == "the model refuses it: 2.7 s is too long"
