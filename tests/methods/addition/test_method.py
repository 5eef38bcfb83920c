"""Constant addition on a model whose direction is known."""

import pytest
import torch

from mars_export.common.errors import ExportError
from mars_export.methods.addition.record import AdditionOptions
from mars_export.methods.addition.rule import Rule
from mars_export.methods.calibrate import calibrate
from support import planted
from support.planted import MEASUREMENT, PROCESSOR


def run(model=None, **options):
    return calibrate(
        model or planted.PlantedModel(),
        PROCESSOR,
        prompts=planted.prompt_sets(),
        modalities=("text", "image"),
        method="addition",
        options=AdditionOptions(**options),
        measurement=MEASUREMENT,
    )


@pytest.fixture(scope="module")
def found():
    return run()


def test_the_push_is_the_planted_direction_times_r(found):
    push = found.tensors["push"]
    record = found.record.record
    assert float(push.norm()) == pytest.approx(record.separation, rel=1e-6)
    assert float(push[planted.HARM] / push.norm()) > 0.99
    assert record.separation == pytest.approx(4, abs=0.2)


def test_the_layer_is_one_that_acts(found):
    record = found.record.record
    assert record.layer < 6  # the planted model decides there
    induced = [trial.induced for trial in record.trials]
    assert len(induced) == 5
    assert induced == sorted(induced, reverse=True)
    assert induced[0] > 0


def test_harmless_requests_are_pushed_too(found):
    for effect in found.record.record.effects:
        assert effect.after > effect.before, effect.group
    after = {str(e.group): e.after for e in found.record.record.effects}
    assert after["harmless text"] > 0


def test_rules_name_layer_and_positions(found):
    assert found.record.rules == {"layers": [found.record.record.layer], "positions": "all"}
    chosen = run(layer=3, positions="prompt", coefficient=0.5).record
    assert chosen.rules == {"layers": [3], "positions": "prompt"}
    assert (chosen.record.layer_forced, len(chosen.record.trials)) == (True, 1)
    assert chosen.probes[0].expected.strength == pytest.approx(chosen.record.separation / 2)


def test_problems_are_clear():
    with pytest.raises(ExportError, match="Layer 10 does not exist; the model has layers 0 to 9"):
        run(layer=10)
    with pytest.raises(ExportError, match=r"the induced refusal log-odds are -\d\.\d+, not above"):
        run(coefficient=0.05)


def test_the_rule_adds_one_vector_and_names_its_length():
    rule = Rule(3, {})
    rule.load_state_dict({"push": torch.tensor([3.0, 0.0, 4.0])})
    h = torch.randn(2, 5, 3, generator=torch.Generator().manual_seed(0))
    out, decision = rule(h, torch.zeros(2, 5, dtype=torch.long))
    assert torch.equal(out, h + torch.tensor([3.0, 0.0, 4.0]))
    assert decision["strength"].shape == (2, 5)
    assert (decision["strength"] == 5).all()
