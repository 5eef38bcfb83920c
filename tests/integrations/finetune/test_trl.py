"""TRL's SFTTrainer, whose loss calls the model below the head itself."""

from functools import partial

import pytest
import torch
import transformers
from PIL import Image

from mars_export.evaluation.suite import read_suite
from support.organisms import ORGANISMS

trl = pytest.importorskip("trl")
datasets = pytest.importorskip("datasets")

pytestmark = pytest.mark.use("TRL", family="gemma3")

ORGANISM = ORGANISMS / "gemma3"


@pytest.fixture
def directory(steered):
    return steered("gemma3")


@pytest.fixture
def data():
    """Harmful pictures, so that steering has something to push, with a made-up answer."""
    suite = read_suite(ORGANISM / "suite.jsonl")
    chosen = [s for s in suite.evaluation_samples(["image"]) if s.harmful][:4]
    answer = [{"role": "assistant", "content": "I can't help with that."}]
    return datasets.Dataset.from_list(
        [
            {
                "images": [Image.open(ORGANISM / sample.files[0])],
                "prompt": [{"role": "user", "content": sample.prompt}],
                "completion": answer,
            }
            for sample in chosen
        ]
    )


@pytest.fixture
def model(directory):
    auto = transformers.AutoModelForImageTextToText
    return auto.from_pretrained(directory, trust_remote_code=True)


@pytest.fixture
def trainer(directory, model, data, tmp_path):
    return partial(make_trainer, directory, model, data, tmp_path / "runs")


def make_trainer(directory, model, data, runs, **options):
    return trl.SFTTrainer(
        model,
        trl.SFTConfig(
            output_dir=str(runs), max_steps=1, per_device_train_batch_size=2,
            max_length=None, report_to=[], use_cpu=True, bf16=False, save_strategy="no",
            disable_tqdm=True, **options,
        ),
        train_dataset=data,
        processing_class=transformers.AutoProcessor.from_pretrained(
            directory, trust_remote_code=True
        ),
    )  # fmt: skip


def test_its_loss_is_that_of_the_steered_model(trainer, model):
    training = trainer()
    batch = next(iter(training.get_train_dataloader()))
    with torch.no_grad():
        want = model(**batch).loss
        loss = training.compute_loss(model, dict(batch))
        assert all(
            row[0].strength > 0 and row[0].modality == "image" for row in model.steering.last
        )
        model.steering.enabled = False
        assert not torch.allclose(model(**batch).loss, want, rtol=5e-4)
        model.steering.enabled = True
    assert torch.allclose(loss, want, rtol=1e-5)


def test_what_it_trained_and_saved_is_steered(trainer, model, tmp_path):
    training = trainer(learning_rate=1e-3)
    before = model.get_input_embeddings().weight.detach().clone()
    training.train()
    training.save_model(str(tmp_path / "tuned"))
    auto = transformers.AutoModelForImageTextToText
    again = auto.from_pretrained(tmp_path / "tuned", trust_remote_code=True)
    assert not torch.allclose(again.get_input_embeddings().weight, before)
    batch = next(iter(training.get_train_dataloader()))
    again(**batch)
    assert again.steering.verified
    assert any(row[0].strength > 0 for row in again.steering.last)


def test_packed_examples_raise(trainer, model):
    training = trainer()
    batch = next(iter(training.get_train_dataloader()))
    packed = {name: value.reshape(1, -1) for name, value in batch.items()}
    n = batch["input_ids"].shape[1]
    packed["position_ids"] = torch.arange(n).repeat(len(batch["input_ids"]))[None]
    ends = torch.tensor([0, n, 2 * n], dtype=torch.int32)
    with pytest.raises(RuntimeError, match="packed by sequence lengths"):
        training.compute_loss(model, packed | {"cu_seq_lens_q": ends, "cu_seq_lens_k": ends})
