"""Averaged weights and fused adapters, on layers whose numbers are known."""

import sys
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[3] / "examples" / "finetune"))

from averaging import Averaging


class Two(torch.nn.Module):
    """A frozen weight and a trained one."""

    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.Parameter(torch.ones(2), requires_grad=False)
        self.trained = torch.nn.Parameter(torch.zeros(2, dtype=torch.bfloat16))


@pytest.fixture
def averaged():
    """After the weights 1 and 2, from 0, of which a step counts half."""
    model, average = Two(), Averaging(decay=0.5)
    average.on_train_begin(None, None, None, model=model)
    for value in (1.0, 2.0):
        with torch.no_grad():
            model.trained.fill_(value)
        average.on_step_end(None, None, None)
    return model, average


def test_the_average_is_taken_over_the_steps(averaged):
    model, average = averaged
    with average.applied():
        assert model.trained.tolist() == [1.25, 1.25]  # (0 / 2 + 1) / 2 / 2 + 2 / 2
        assert model.frozen.tolist() == [1.0, 1.0]
        assert model.trained.dtype == torch.bfloat16
    assert model.trained.tolist() == [2.0, 2.0]
    average.apply()
    assert model.trained.tolist() == [1.25, 1.25]


def test_small_steps_are_not_lost_to_rounding():
    model, average = Two(), Averaging(decay=0.999)
    average.on_train_begin(None, None, None, model=model)
    with torch.no_grad():
        model.trained.fill_(1.0)
    for _ in range(1000):
        average.on_step_end(None, None, None)
    average.apply()
    assert float(model.trained.detach()[0]) == pytest.approx(1 - 0.999**1000, abs=0.01)


@pytest.mark.parametrize("decay", [0.0, 1.0, -1.0, 2.0])
def test_a_decay_that_averages_nothing_is_refused(decay):
    with pytest.raises(ValueError, match="not between 0 and 1"):
        Averaging(decay)


def test_trainer_calls_it(tmp_path):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")

    class Line(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(1))

        def forward(self, x):
            return {"loss": (self.weight * x - 1).square().mean()}

    model, average = Line(), Averaging(decay=0.5)
    options = transformers.TrainingArguments(
        output_dir=str(tmp_path), max_steps=3, learning_rate=0.1, lr_scheduler_type="constant",
        per_device_train_batch_size=1, save_strategy="no", report_to=[], disable_tqdm=True,
        use_cpu=True,
    )  # fmt: skip
    data = [{"x": torch.ones(1)}] * 3
    trainer = transformers.Trainer(model, options, train_dataset=data, callbacks=[average])
    trainer.train()
    last = float(model.weight.detach())
    average.apply()
    assert 0 < float(model.weight.detach()) < last


def test_the_sum_of_two_adapters_is_exact():
    peft = pytest.importorskip("peft")
    from recipes import fused

    torch.manual_seed(0)
    base = torch.nn.Sequential(torch.nn.Linear(6, 5))
    before = base[0].weight.detach().clone()

    def lora(rank):
        return peft.LoraConfig(r=rank, lora_alpha=2 * rank, target_modules=["0"])

    model = peft.get_peft_model(base, lora(2))
    model.add_adapter("safety", lora(3))
    layer = model.base_model.model[0]
    with torch.no_grad():
        for name in ("default", "safety"):
            layer.lora_B[name].weight.normal_()
    deltas = [layer.get_delta_weight(name) for name in ("default", "safety")]
    fused(model, ("default", "safety"), (1.0, 0.5), "both")
    merged = model.merge_and_unload()[0].weight
    torch.testing.assert_close(merged, before + deltas[0] + 0.5 * deltas[1])
