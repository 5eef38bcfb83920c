"""LoRA on a steered checkpoint: its targets, and every way from there to a directory."""

import copy
import json
import shutil

import pytest
import torch
import transformers
from safetensors.torch import load_file

from mars_export.checkpoint.derived import native_view, read_steering
from mars_export.checkpoint.integrity import verify_files
from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.errors import ExportError
from mars_export.families import families
from support import zoo
from support.behavior import export, load

peft = pytest.importorskip("peft")

NAMED = {"target_modules": ["q_proj", "down_proj"]}
LINEAR = {"target_modules": "all-linear"}


def lora(**options):
    return peft.LoraConfig(r=4, lora_alpha=8, init_lora_weights=False, **options)


def targets(model, config):
    """Names that peft wraps, or what it says when it knows none."""
    try:
        return sorted(peft.get_peft_model(model, config).base_model.targeted_module_names)
    except ValueError as error:
        return str(error)


@pytest.mark.use("LoRA")
@pytest.mark.parametrize("options", [{}, LINEAR, NAMED], ids=["default", "all-linear", "named"])
@pytest.mark.parametrize("model_type", ["gemma3", "gemma3_text", "qwen3", "qwen3_vl"])
def test_targets_are_those_on_the_base(model_type, options, tmp_path):
    family = families()[model_type]
    base = zoo.save_base(model_type, tmp_path / "base")
    steered = load(export(family, base, tmp_path), family.auto_class)
    native = getattr(transformers, family.generator).from_pretrained(base)
    got = targets(steered, lora(**options))
    assert got == targets(native, lora(**options))
    assert "steering" not in str(got)


@pytest.fixture(scope="module")
def trainings():
    """Model as it left its training, and the folder of the saved adapter, by family."""
    return {}


@pytest.fixture
def trained(pair, trainings, tmp_path, tmp_path_factory):
    """A copy of a model with a LoRA that Trainer trained and saved."""
    if pair.family not in trainings:
        folder = tmp_path_factory.mktemp("trained")
        trainings[pair.family] = train(pair, folder), folder / "adapter"
    model, adapter = trainings[pair.family]
    shutil.copytree(adapter, tmp_path / "adapter")
    return copy.deepcopy(model)


def train(pair, folder):
    torch.manual_seed(0)
    model = peft.get_peft_model(pair.model, lora(**LINEAR, task_type="CAUSAL_LM"))
    arguments = transformers.TrainingArguments(
        output_dir=str(folder / "runs"),
        max_steps=3,
        per_device_train_batch_size=1,
        learning_rate=1e-2,
        weight_decay=0.1,
        report_to=[],
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
    )
    trainer = transformers.Trainer(  # an item is a whole batch: only one row has pixels
        model, arguments, train_dataset=[pair.batch] * 3, data_collator=lambda items: items[0]
    )
    trainer.train()
    trainer.save_model(str(folder / "adapter"))
    return model.eval()


@torch.no_grad()
def logits(model, pair):
    batch = {name: value for name, value in pair.batch.items() if name != "labels"}
    return model.eval()(**batch).logits


def close(got, want):
    return torch.allclose(got, want, rtol=1e-3, atol=1e-3)


def auto(directory):
    found = transformers.AutoModelForImageTextToText
    return found.from_pretrained(directory, trust_remote_code=True)


@pytest.mark.use("LoRA")
def test_an_adapter_holds_no_steering_and_loads_onto_the_checkpoint(pair, trained, tmp_path):
    adapter = tmp_path / "adapter"
    assert not any("steering" in name for name in load_file(adapter / "adapter_model.safetensors"))
    stated = json.loads((adapter / "adapter_config.json").read_text())
    assert stated["base_model_name_or_path"] == str(pair.directory)
    again = peft.PeftModel.from_pretrained(auto(pair.directory), adapter)
    assert close(logits(again, pair), logits(trained, pair))
    assert any(row[0].strength > 0 for row in again.get_base_model().steering.last)
    by_name = peft.AutoPeftModelForCausalLM.from_pretrained(adapter, trust_remote_code=True)
    assert close(logits(by_name, pair), logits(trained, pair))


def test_an_adapter_on_the_unsteered_base_is_not_steered(pair, trained, tmp_path):
    on_base = peft.PeftModel.from_pretrained(pair.base, tmp_path / "adapter")
    assert not close(logits(on_base, pair), logits(trained, pair))
    trained.get_base_model().steering.enabled = False
    assert close(logits(on_base, pair), logits(trained, pair))


@pytest.mark.use("LoRA merged and saved")
def test_a_merged_model_is_steered_and_needs_nothing_else(pair, trained, tmp_path):
    want = logits(trained, pair)
    merged = tmp_path / "merged"
    trained.merge_and_unload().save_pretrained(merged)
    model = auto(merged)
    assert model.steering.verified
    assert close(logits(model, pair), want)
    assert not (merged / MANIFEST_NAME).exists()
    for code in ("modeling_steered.py", "steering_host.py"):
        assert (merged / code).read_bytes() == (pair.directory / code).read_bytes()
    (rules, tensors), (before, stored) = read_steering(merged), read_steering(pair.directory)
    assert rules == before
    for layer, part in stored.items():
        assert all(tensors[layer][name].equal(tensor) for name, tensor in part.items())
    with pytest.raises((ValueError, KeyError), match=r"custom code|steered checkpoint"):
        transformers.AutoModelForImageTextToText.from_pretrained(merged, trust_remote_code=False)
    with pytest.raises(ExportError, match="mars-export recalibrate"):
        Manifest.read(merged)


def test_a_merged_model_without_its_steering_is_the_merged_base(pair, trained, tmp_path):
    merged, view = tmp_path / "merged", tmp_path / "view"
    trained.merge_and_unload().save_pretrained(merged)
    native_view(merged, view)
    native = type(pair.base).from_pretrained(view)
    on_base = peft.PeftModel.from_pretrained(copy.deepcopy(pair.base), tmp_path / "adapter")
    assert close(logits(native, pair), logits(on_base, pair))


def test_saving_over_the_steered_directory_leaves_a_manifest_that_no_longer_fits(pair, trained):
    trained.merge_and_unload().save_pretrained(pair.directory)
    assert auto(pair.directory).steering.verified
    problems = " ".join(verify_files(pair.directory))
    assert "is not the file that was exported" in problems or "missing" in problems


@pytest.mark.use("LoRA merged and saved")
def test_fused_adapters_merge_into_a_steered_model(pair, tmp_path):
    """Safety-aware LoRA fusion (arXiv 2501.06208): a task's and a safety adapter, weighted."""
    torch.manual_seed(0)
    model = peft.get_peft_model(pair.model, lora(**NAMED), adapter_name="task")
    model.add_adapter("safety", lora(**NAMED))
    model.add_weighted_adapter(["task", "safety"], [0.7, 0.3], "fused", combination_type="cat")
    model.set_adapter("fused")
    want = logits(model, pair)
    model.merge_and_unload().save_pretrained(tmp_path / "merged")
    merged = auto(tmp_path / "merged")
    assert merged.steering.verified
    assert close(logits(merged, pair), want)
    merged.steering.enabled = False
    assert not close(logits(merged, pair), want)
