"""A tiny steered checkpoint of every family, made once."""

import pytest
import torch

from support import zoo
from support.behavior import Pair


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Base and steered model of a family by model type, exported at the first call."""
    made: dict[str, Pair] = {}

    def get(model_type: str) -> Pair:
        if model_type not in made:
            made[model_type] = Pair.make(model_type, tmp_path_factory.mktemp(model_type))
        made[model_type].model.steering.enabled = True
        return made[model_type]

    return get


@pytest.fixture(params=zoo.each())
def pair(request, pairs):
    return pairs(request.param)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
