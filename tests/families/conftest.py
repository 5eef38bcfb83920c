"""A tiny steered checkpoint of every family, made once; and a record of what was tested.

With `MARS_BEHAVIOUR=FILE` the outcome of every behaviour and family is written there as JSON, from
which `tests/support/table.py` makes the README's table.
"""

import json
import os
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

from support import zoo
from support.behaviour import Pair

OUTCOMES: dict[str, dict[str, str]] = {}


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Base and steered model of a family by model type, exported at the first call."""
    made: dict[str, Pair] = {}

    def get(model_type: str) -> Pair:
        if model_type not in made:
            made[model_type] = Pair.make(model_type, tmp_path_factory.mktemp(model_type))
        made[model_type].model.mars.enabled = True
        return made[model_type]

    return get


@pytest.fixture(params=zoo.MODEL_TYPES)
def pair(request, pairs):
    return pairs(request.param)


@pytest.fixture
def natively_refused(record_property):
    """Say that Transformers itself refuses this for the family, as the test has shown."""
    return lambda reason: record_property("refused", reason)


@pytest.fixture(autouse=True)
def _no_grad():
    with torch.no_grad():
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    params = getattr(getattr(item, "callspec", None), "params", {})
    if item.path.name == "test_behaviour.py" and "pair" in params:
        title = item.originalname.removeprefix("test_").replace("_", " ")
        item.user_properties += [("behaviour", title), ("family", params["pair"])]


def pytest_runtest_logreport(report):
    told = dict(report.user_properties)
    if "behaviour" not in told or (report.when != "call" and report.passed):
        return
    outcome = report.outcome
    if report.passed and "refused" in told:
        outcome = f"refused natively: {told['refused']}"
    if report.skipped:
        outcome = f"does not apply: {report.longrepr[2].removeprefix('Skipped: ')}"
    cells = OUTCOMES.setdefault(told["family"], {})
    if cells.get(told["behaviour"]) != "failed":  # of several variants the worst counts
        cells[told["behaviour"]] = outcome


def pytest_sessionfinish(session):
    target = os.environ.get("MARS_BEHAVIOUR")
    if target and not hasattr(session.config, "workerinput"):
        versions = {name: version(name) for name in ("torch", "transformers")}
        record = {"versions": versions, "families": dict(sorted(OUTCOMES.items()))}
        Path(target).write_text(json.dumps(record, indent=2) + "\n", encoding="utf-8")
