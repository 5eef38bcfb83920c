"""Tiny steered checkpoints to train on; each test gets a copy, because training changes it."""

import copy
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from support import tiny
from support.sharing import once_each

ANSWER = 5


def training_batch(family):
    """Prompts of two rows and their answers; labels cover the answers, one of them shorter."""
    rows = [(tiny.random_ids(6, 1), None), (tiny.random_ids(9, 2), "image")]
    batch = tiny.inputs(family, rows)
    prompt = batch["input_ids"].shape[1]
    answers = torch.tensor([tiny.random_ids(ANSWER, 3), tiny.random_ids(ANSWER, 4)])
    ones = torch.ones_like(answers)
    ones[0, -2:] = 0  # padding on the right, as collators of training do
    batch["input_ids"] = torch.cat([batch["input_ids"], answers * ones], 1)
    batch["attention_mask"] = torch.cat([batch["attention_mask"], ones], 1)
    types = next(name for name in batch if name.endswith("token_type_ids"))
    batch[types] = torch.cat([batch[types], torch.zeros_like(answers).to(batch[types].dtype)], 1)
    labels = torch.where(ones == 1, answers, -100)
    batch["labels"] = torch.cat([torch.full((2, prompt), -100), labels], 1)
    return batch, prompt - 1


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    return once_each(tmp_path_factory, tiny.export)


@pytest.fixture(scope="session")
def loaded(exported):
    """Base and steered model of a family as loaded; not to be changed."""
    made = {}

    def get(family):
        if family not in made:
            base, directory = exported(family)
            auto = transformers.AutoModelForImageTextToText
            made[family] = (
                auto.from_pretrained(base),
                auto.from_pretrained(directory, trust_remote_code=True),
            )
        return made[family]

    return get


@pytest.fixture(params=tiny.FAMILIES)
def pair(request, exported, loaded):
    family = request.param
    base_dir, directory = exported(family)
    base, model = loaded(family)
    direction = load_file(directory / "calibration/calibration.safetensors")["direction"]
    batch, end = training_batch(family)
    return SimpleNamespace(
        family=family,
        base_dir=base_dir,
        directory=directory,
        base=copy.deepcopy(base),
        model=copy.deepcopy(model),
        record=tiny.record(family),
        unit=direction / direction.norm(),
        batch=batch,
        end=end,
    )
