"""LoRA on a quantized steered model: trained, saved, loaded onto it again, merged."""

import pytest
import torch
from safetensors.torch import load_file

from mars_export.checkpoint.derived import read_steering
from support import tiny
from support.quantized import load
from support.tiny import random_ids

peft = pytest.importorskip("peft")
for package in ("bitsandbytes", "accelerate"):
    pytest.importorskip(package)

STEPS = 3
SCHEMES = ("bnb-8bit", "bnb-4bit")
EACH = [
    pytest.param(family, scheme, marks=pytest.mark.use("QLoRA", family=family))
    for family in tiny.FAMILIES
    for scheme in SCHEMES
]


def batch_of(family):
    batch = tiny.inputs(family, [(random_ids(6, 1), None), (random_ids(9, 2), "image")])
    labels = torch.where(batch["attention_mask"] == 1, batch["input_ids"], -100)
    labels[:, :-4] = -100
    return batch, labels


@torch.no_grad()
def logits(model, batch):
    model.eval()
    return model(**batch).logits


@pytest.fixture
def trained(family, scheme, exported, tmp_path):
    """The adapted model after some steps, its losses, and the folder of its adapter."""
    torch.manual_seed(0)
    model = load(exported(family).steered, scheme)
    model = peft.prepare_model_for_kbit_training(model, use_gradient_checkpointing=False)
    lora = peft.LoraConfig(
        r=4, lora_alpha=8, target_modules="all-linear", task_type="CAUSAL_LM",
        init_lora_weights=False,
    )  # fmt: skip
    adapted = peft.get_peft_model(model, lora)
    batch, labels = batch_of(family)
    optimizer = torch.optim.AdamW([p for p in adapted.parameters() if p.requires_grad], lr=1e-2)
    adapted.train()
    losses = []
    for _ in range(STEPS):
        loss = adapted(**batch, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss.detach()))
    adapted.save_pretrained(tmp_path / "adapter")
    return adapted, losses, tmp_path / "adapter"


@pytest.mark.parametrize(("family", "scheme"), EACH)
def test_it_trains_saves_and_loads_with_the_same_steering(
    trained, family, scheme, exported, tmp_path
):
    adapted, losses, folder = trained
    pair, (batch, _) = exported(family), batch_of(family)
    assert losses[-1] < losses[0]
    assert not [name for name, p in adapted.named_parameters() if "steering" in name]
    assert not [n for n in load_file(folder / "adapter_model.safetensors") if "steering" in n]
    model = adapted.get_base_model()
    model.verify_steering()
    want = logits(adapted, batch)
    assert [row[0].modality for row in model.steering.last] == ["text", "image"]
    again = peft.PeftModel.from_pretrained(load(pair.steered, scheme), folder)
    torch.testing.assert_close(logits(again, batch), want, rtol=1e-3, atol=1e-3)
    again.get_base_model().steering.enabled = False
    native = peft.PeftModel.from_pretrained(load(pair.base, scheme), folder)
    assert logits(again, batch).equal(logits(native, batch))
    assert (logits(native, batch) - want)[:, -1].abs().amax(-1).min() > 0.01


@pytest.mark.parametrize(("family", "scheme"), EACH)
def test_merged_onto_the_steered_checkpoint_it_is_a_steered_directory(
    trained, family, scheme, exported, tmp_path
):
    """Merged into quantized weights it would be rounded again: it goes onto those in full."""
    _, _, folder = trained
    pair, (batch, _) = exported(family), batch_of(family)
    whole = peft.PeftModel.from_pretrained(load(pair.steered), folder)
    want = logits(whole, batch)
    whole.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = load(tmp_path / "merged")
    torch.testing.assert_close(logits(merged, batch), want, rtol=1e-3, atol=1e-3)
    assert merged.steering.verified
    again = load(tmp_path / "merged", scheme)
    assert again.steering.verified
    (rules, tensors), (before, stored) = (
        read_steering(tmp_path / "merged"),
        read_steering(pair.steered),
    )
    assert rules == before
    for layer, part in stored.items():
        assert all(tensors[layer][name].equal(tensor) for name, tensor in part.items())


@pytest.mark.parametrize(("family", "scheme"), EACH)
def test_merged_into_quantized_weights_it_is_saved_steered(trained, family, scheme, tmp_path):
    adapted, _, _ = trained
    batch, _ = batch_of(family)
    merged = adapted.merge_and_unload()
    merged.verify_steering()
    # Before the first answer: to answer on a CPU bitsandbytes packs 4 bits in a form that neither
    # its saving nor peft's merging undoes exactly, steered or not.
    merged.save_pretrained(tmp_path / "merged")
    again = load(tmp_path / "merged")
    torch.testing.assert_close(logits(again, batch), logits(merged, batch), rtol=1e-4, atol=1e-4)
    assert again.steering.verified
    assert [row[0].modality for row in again.steering.last] == ["text", "image"]
