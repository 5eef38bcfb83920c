"""The average is the formula's, of trainable weights alone, and is there when training ends."""

import pytest
import torch

from mars_export.integrations.finetune.ema import WeightAverage


def test_averages_follow_the_formula():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 1))
    model[1].requires_grad_(False)
    frozen, weight = model[1].weight.clone(), model[0].weight
    callback, decay = WeightAverage(0.8), 0.8
    callback.on_train_begin(None, None, None, model=model)
    want = weight.detach().clone()
    for step in range(3):
        with torch.no_grad():
            weight += step + 1.0
        callback.on_step_end(None, None, None, model=model)
        want = decay * want + (1 - decay) * weight.detach()
    assert not torch.allclose(weight, want)
    callback.on_train_end(None, None, None, model=model)
    assert torch.allclose(weight, want)
    assert model[1].weight.equal(frozen)


def test_trainer_calls_it(tmp_path):
    pytest.importorskip("accelerate")
    import transformers

    class Constant(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def forward(self, labels):
            return {"loss": (self.w * labels).mean()}

    ends = []
    for callbacks in ([], [WeightAverage(0.5)]):
        model = Constant()
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path), max_steps=2, learning_rate=1.0, lr_scheduler_type="constant",
            optim="sgd", per_device_train_batch_size=1, save_strategy="no", report_to=[],
            use_cpu=True, max_grad_norm=0,
        )  # fmt: skip
        data = [{"labels": torch.ones(1)}] * 2
        transformers.Trainer(model, arguments, train_dataset=data, callbacks=callbacks).train()
        ends.append(model.w.item())
    assert ends == [pytest.approx(-2), pytest.approx(0.5 * (0.5 * 0 + 0.5 * -1) + 0.5 * -2)]


@pytest.mark.parametrize("decay", [1.0, -0.1])
def test_a_decay_that_is_none_is_refused(decay):
    with pytest.raises(ValueError, match="decay"):
        WeightAverage(decay)
