from functools import partial
from types import SimpleNamespace

import pytest
import torch
import transformers
from safetensors.torch import load_file

from support import tiny
from support.behavior import Pair
from support.conversations import HEADERS
from support.sharing import once_each, switched_on


def _load(family, folder):
    base, steered = tiny.export(family, folder)
    auto = transformers.AutoModelForImageTextToText
    return SimpleNamespace(
        family=family,
        base_dir=base,
        directory=steered,
        record=tiny.record(family),
        direction=load_file(steered / "calibration/calibration.safetensors")["direction"],
        base=auto.from_pretrained(base).eval(),
        model=auto.from_pretrained(steered, trust_remote_code=True).eval(),
    )


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Steered and native model of a family, made once."""
    return switched_on(once_each(tmp_path_factory, _load))


@pytest.fixture(scope="session")
def talkers(tmp_path_factory):
    """Base and steered model of a family whose tokenizer joins headers to a blank line."""
    return switched_on(once_each(tmp_path_factory, partial(Pair.make, headers=HEADERS)))


@pytest.fixture(params=tiny.FAMILIES)
def pair(request, exported):
    return exported(request.param)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
