"""A tiny steered checkpoint of every family, made once."""

import pytest
import torch

from support import zoo
from support.behavior import Pair
from support.sharing import once_each, switched_on


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Base and steered model of a family by model type, exported at the first call."""
    return switched_on(once_each(tmp_path_factory, Pair.make))


@pytest.fixture(params=zoo.each())
def pair(request, pairs):
    return pairs(request.param)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
