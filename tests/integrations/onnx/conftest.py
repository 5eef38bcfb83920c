"""Tiny checkpoints and steered organisms as graphs, made once."""

import pytest
import torch

from support.behavior import Pair
from support.organisms import FAMILIES


@pytest.fixture(scope="session")
def tiny_graphs(tmp_path_factory):
    """Pair and graphs of a tiny random checkpoint by family."""
    from support.onnx_graphs import graphs_of

    made = {}

    def get(family):
        if family not in made:
            pair = Pair.make(family, tmp_path_factory.mktemp(family))
            made[family] = pair, graphs_of(pair, tmp_path_factory.mktemp("graphs"))
        made[family][0].model.steering.enabled = True
        return made[family]

    return get


@pytest.fixture(scope="session")
def written(shared, steered, main_job):
    """What `mars-export onnx` made of an organism, and its output."""

    def get(family):
        def make(folder):
            done = main_job("onnx", steered(family), "--output", "graphs", cwd=folder)
            (folder / "output.txt").write_text(done.stdout + done.stderr, encoding="utf-8")

        folder = shared(f"onnx-{family}", make)
        return folder / "graphs", (folder / "output.txt").read_text("utf-8")

    return get


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield
