"""MARS with a cosine from a neutral center as its gate."""

import numpy as np
import pytest
import torch

from mars_export.methods import method_named
from mars_export.methods.mars_cosine.rule import Rule
from support import planted, tiny

SIZES = {"modalities": ["text", "image"], "knots": 2, "turns": 2}


def rule_of(artefact):
    record = artefact.record
    modalities = list(record.source.modalities)
    rule = Rule(record.source.hidden_size, {**record.rules, "modalities": modalities})
    rule.load_state_dict({name: artefact.tensors[name] for name in Rule.TENSORS})
    return rule


def made(center, cap=4.0, slope=6.0, radius=2.0):
    rule = Rule(len(center), SIZES)
    rule.load_state_dict(
        {
            "direction": torch.eye(len(center))[0],
            "knots": torch.tensor([[0.0, 0.0], [4.0, 16.0]]),
            "shift": torch.tensor([[0.0, 0.0], [1.0, 3.0]]),
            "turn": torch.tensor([[0.0, 0.5], [0.0, -0.5]]),
            "bounds": torch.tensor([[9.0, 9.5, cap, slope, radius]] * 2),
            "center": center,
        }
    )
    return rule


def test_the_rule_is_the_formula():
    generator = torch.Generator().manual_seed(0)
    center = torch.randn(8, generator=generator)
    h = center + 4 * torch.randn(300, 8, generator=generator)
    number = torch.arange(300)
    context = torch.stack([number % 2, 4 + number % 13, number % 3], -1)
    after, decision = made(center)(h, context)
    c, x = center.double().numpy(), h.double().numpy()
    modality, visual, turn = context.numpy().T
    beta = np.where(
        modality == 0,
        0.5 * (turn > 0),
        np.interp(np.log2(visual), [2, 4], [1, 3]) - 0.5 * (turn > 0),
    )
    v = x - c
    v[:, 0] -= beta
    gate = np.maximum(0, v[:, 0] / np.linalg.norm(v, axis=1))
    room = np.maximum(0, 4.0 + beta - x[:, 0])
    strength = np.minimum(np.minimum(6.0 * gate, room), 2.0)
    np.testing.assert_allclose(decision["gate"], gate, atol=1e-5)
    np.testing.assert_allclose(decision["strength"], strength, atol=1e-4)
    x[:, 0] += strength
    np.testing.assert_allclose(after, x, atol=1e-4)
    assert (strength > 0).any()
    assert (strength == 0).any()
    # Within the trust region: not beyond the edge, never longer than the radius.
    assert (decision["strength"] <= 2).all()
    assert (after[:, 0].numpy() <= np.maximum(h[:, 0].numpy(), 4.0 + beta) + 1e-4).all()


@pytest.mark.parametrize(("context", "beta"), [([0, 0, 0], 0), ([1, 4, 0], 1), ([1, 16, 1], 2.5)])
def test_at_and_below_the_center_nothing_is_pushed(context, beta):
    center = torch.tensor([0.5, -2.0, 1.0, 4.0])
    for below in (0.0, 0.25, 8.0):
        h = center.clone()
        h[0] += beta - below
        after, decision = made(center)(h, torch.tensor(context))
        assert after.equal(h)
        assert (decision["gate"], decision["strength"]) == (0, 0)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({}, None),
        ({"cap": 0.0}, "the cap is not above the center"),
        ({"slope": 0.0}, "the slope is not above 0"),
        ({"radius": -1.0}, "the radius is not above 0"),
        ({"cap": float("nan")}, "a bound is not finite"),
        ({"center": torch.full((3,), torch.inf)}, "the center is not finite"),
    ],
)
def test_what_can_never_push_says_why(changes, problem):
    center = changes.pop("center", torch.ones(3))
    assert made(center, **changes).problem() == problem


@pytest.fixture(scope="module")
def found():
    return planted.calibrated("mars-cosine", method_named("mars-cosine").Options())


def test_all_but_the_gate_is_that_of_mars(found):
    mars = planted.calibrated("mars", method_named("mars").Options())
    assert found.record.rules == mars.record.rules
    for name in ("direction", "knots", "shift", "turn", "bounds"):
        assert found.tensors[name].equal(mars.tensors[name]), name
    assert found.tensors["center"].equal(mars.tensors["centroid_harmless"])
    method = method_named("mars-cosine")
    assert method.longest_push(found.record) == pytest.approx(float(found.tensors["bounds"][0, 4]))


def test_the_gate_opens_for_harm_and_for_some_that_is_harmless(found):
    gates = {(some.label, some.modality): some for some in found.record.record.gates}
    assert len(gates) == 4
    for modality in ("text", "image"):
        assert gates["harmful", modality].open == gates["harmful", modality].n
        assert gates["harmful", modality].median > 0.5
        assert 0 < gates["harmless", modality].open < gates["harmless", modality].n
    assert any("harmless requests (text); they may be refused" in said
               for said in found.record.record.findings)  # fmt: skip


def test_probes_are_decisions_of_its_own_rule(found):
    rule = rule_of(found)
    for probe in found.record.probes:
        expected = probe.expected
        words = planted.PROCESSOR.apply_chat_template(
            [{"role": "user", "content": [{"type": "text", "text": probe.prompt}]}],
            tokenize=True, return_dict=True, add_generation_prompt=True, return_tensors="pt",
        ) if not probe.stimuli else None  # fmt: skip
        if words is None:
            continue
        model, states = planted.PlantedModel(), []
        layer = model.layers[found.record.record.layer]
        layer.register_forward_hook(lambda _m, _a, out, kept=states: kept.append(out[:, -1]))
        model(**words, use_cache=False, logits_to_keep=1)
        _, decision = rule(states[0], torch.tensor([[0, 0, 0]]))
        assert float(decision["gate"]) == pytest.approx(expected.gate, abs=1e-4)
        assert float(decision["strength"]) == pytest.approx(expected.strength, abs=1e-3)
    for modality in ("text", "image"):
        active = [p.expected.active for p in found.record.probes if p.modality == modality]
        assert active == [True, True, True, False]


def test_a_center_that_moved_does_not_fit(found):
    method = method_named("mars-cosine")
    rules = {**found.record.rules, "modalities": list(found.record.source.modalities)}
    assert all(d.fits for d in method.compare(rules, found.tensors, found))
    r, size = found.tensors["direction"], found.record.record.separation
    aside = torch.nn.functional.one_hot(r.abs().argmin(), len(r)).float()
    for by, names in (
        (0.5 * size * r, {"center of text", "center of image"}),
        (3 * size * aside, {"harmful text"}),
    ):
        moved = {**found.tensors, "center": found.tensors["center"] - by}
        assert {d.name for d in method.compare(rules, moved, found) if not d.fits} == names


def test_the_card_says_that_it_refuses_more():
    section = method_named("mars-cosine").card(tiny.mars_cosine("gemma3").record)
    assert "over-refuses more than MARS" in section.limits[0]
    assert "2411.16721" in section.citations[0]
    assert "| harmful text + neutral image | 9/9 | 0.5 |" in section.details
