"""Labeled requests with pictures tune origin and strength of a planted model."""

import pytest
import torch
from PIL import Image

from mars_export.common.errors import ExportError
from mars_export.inputs.requests import Media, Request
from mars_export.inputs.tuning import LabeledRequest, divided
from mars_export.methods.calibrate import calibrate
from mars_export.methods.mars.card import section
from mars_export.methods.mars.record import HeldOut, MarsOptions
from mars_export.methods.mars.refit import _objection
from support import planted
from support.planted import BAD, GOOD, MEASUREMENT, PROCESSOR


def requests(words, label, count=24):
    for number, prompt in enumerate(planted.texts(words, count)):
        picture = Image.new("RGB", (28, 28), (5 * number, 80, 120))
        yield LabeledRequest(Request(prompt, (Media("image", picture),)), label, "image", prompt)


def run(model, tuning=None, **options):
    return calibrate(
        model, PROCESSOR, prompts=planted.prompt_sets(), modalities=("text", "image"),
        options=MarsOptions(**options), measurement=MEASUREMENT, tuning=tuning,
    )  # fmt: skip


def own(harmful=BAD[150:], harmless=GOOD[150:]):
    pairs = [*requests(harmful, "harmful"), *requests(harmless, "harmless")]
    return divided("own", "ab" * 32, "MIT", pairs, 0)


def mild():
    """A model to which some pictures are less harmful than any text."""
    return planted.PlantedModel(odd=dict.fromkeys(BAD[150:], 0.65), threshold=3.5)


@pytest.fixture(scope="module")
def before():
    return run(mild())


@pytest.fixture(scope="module")
def after():
    return run(mild(), own())


def test_harmful_pictures_below_the_gate_are_refused_after_tuning(before, after):
    (tuned,) = after.record.record.tuned
    assert tuned.applied
    assert (tuned.harmful, tuned.harmless) == (12, 12)
    assert tuned.after.refused >= tuned.before.refused + 3
    assert tuned.after.open <= max(tuned.before.open, 0.05 * tuned.harmless)
    assert after.record.record.origin["image"] < before.record.record.origin["image"]
    assert tuned.origin == before.record.record.origin["image"]


def test_only_origin_and_strength_of_pictures_change(before, after):
    for name in ("direction", "knots", "shift", "turn"):
        torch.testing.assert_close(before.tensors[name], after.tensors[name], rtol=0, atol=0)
    old, new = before.tensors["bounds"], after.tensors["bounds"]
    torch.testing.assert_close(old[0], new[0], rtol=0, atol=0)
    assert float(new[1, 0]) < float(old[1, 0])
    record = after.record.record
    own = record.strengths["image"]
    limits = torch.tensor([own.cap, own.gain * record.separation, own.radius * record.separation])
    torch.testing.assert_close(new[1, 2:], limits)


def test_the_promise_to_neutral_requests_is_kept(after):
    images = [c for c in after.record.record.checks if c.modality == "image"]
    assert all(c.open <= 0.05 * c.n for c in images if c.name == "all")
    assert any(p.expected.active for p in after.record.probes if p.modality == "image")


def test_the_source_says_what_was_used(before, after):
    source = after.record.source.tuning
    assert (source.name, source.sha256, source.license) == ("own", "ab" * 32, "MIT")
    assert source.counts == {"image": {"harmful": 24, "harmless": 24}}
    assert source.fit == source.held_out == {"image": {"harmful": 12, "harmless": 12}}
    assert before.record.source.tuning is None


def test_the_card_says_what_that_changed(before, after):
    tuned, said = after.record.record.tuned[0], section(after.record)
    assert f"{tuned.before.refused} before, {tuned.after.refused} after tuning" in said.tuning
    assert "tuned on labeled requests" in said.details
    assert "as tuned: images" in said.details
    assert "tuned on labeled requests" not in section(before.record).details


def test_a_gate_that_harmless_pictures_open_is_closed():
    odd = dict.fromkeys(GOOD[150:], 0.55)
    model = planted.PlantedModel(odd=odd, threshold=3.5, shift=0.2)
    record = run(model, own(), reserve=0.0).record.record
    (tuned,) = record.tuned
    assert tuned.applied
    assert tuned.before.open > 0.2 * tuned.harmless
    assert tuned.after.open < 0.5 * tuned.before.open
    assert tuned.after.refused == tuned.harmful
    assert record.origin["image"] > tuned.origin


def test_requests_of_no_use_leave_the_calibration_as_it_was(before):
    artefact = run(mild(), own(BAD[:100]))
    (tuned,) = artefact.record.record.tuned
    assert not tuned.applied
    for name, tensor in before.tensors.items():
        torch.testing.assert_close(artefact.tensors[name], tensor, rtol=0, atol=0)
    assert any("to tune on change nothing" in text for text in artefact.record.record.findings)
    assert "**not applied**" in section(artefact.record).tuning


def held(refused=10, open=0, newly_refused=0):
    return HeldOut(refused=refused, open=open, bound=0.1, newly_refused=newly_refused)


@pytest.mark.parametrize(
    ("before", "after", "inert", "said"),
    [
        (held(), held(12), False, ""),
        (held(), held(12, open=2), False, ""),
        (held(), held(20, open=3), False, "open for 3 of 40"),
        (held(open=4), held(12, open=4), False, ""),
        (held(open=4), held(12, open=5), False, "open for 5 of 40"),
        (held(), held(20, newly_refused=3), False, "3 of 40 held-out harmless"),
        (held(), held(9), False, "9 held-out harmful requests would be refused, and 10"),
        (held(open=5), held(9, open=1), False, ""),
        (held(), held(), False, "changes nothing"),
        (held(), held(20), True, "shut for harmful text"),
    ],
)
def test_it_is_never_worse_for_harmless_requests(before, after, inert, said):
    reason = _objection(before, after, 40, inert)
    assert said in reason if said else reason == ""


def test_a_method_without_a_gate_cannot_be_tuned():
    with pytest.raises(ExportError, match="addition cannot be tuned"):
        calibrate(
            mild(), PROCESSOR, prompts=planted.prompt_sets(), modalities=("text",),
            method="addition", tuning=own(),
        )  # fmt: skip
