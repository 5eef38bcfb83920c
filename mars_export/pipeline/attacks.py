"""Attacks on a steered directory, from the names of the suites to the record that is written."""

from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.disk_errors import require_writable
from mars_export.common.errors import ExportError
from mars_export.common.names import ADAPTIVE_NAME
from mars_export.common.progress import Tick
from mars_export.evaluation.adaptive import attack as adaptive
from mars_export.evaluation.adaptive.record import Adaptive, Budget
from mars_export.evaluation.judges.base import Judge
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.suite import Suite
from mars_export.evaluation.suites.catalog import open_suites
from mars_export.families.placement import Device
from mars_export.pipeline.evaluation import suites_at_hand
from mars_export.pipeline.questions import check_suite

__all__ = ["attack"]


def attack(
    directory: Path,
    suite: Suite | Sequence[str] = (),
    budget: Budget | None = None,
    *,
    judge: Judge | None = None,
    batch_size: int = EvaluationOptions().batch_size,
    device: Device = "auto",
    progress: Tick | None = None,
    overwrite: bool = False,
) -> Adaptive:
    """Attack a steered directory and write the record into it, as `mars-export attack` does.

    Args:
        directory: Steered checkpoint; `evaluation/adaptive.json` in it is written and sealed.
        suite: What to ask: a suite, or names and files as for `open_suites`; none for what the
            directory was made with.
        budget: Of the attacker; the defaults if None.
        judge: Of the answers; None for the rules.
        batch_size: Most rows at once; halved when memory runs out.
        device: For example `cpu`, or another placement; `auto` takes a GPU when there is one.
        progress: Told how many attacks are done, and of how many.
        overwrite: Whether the record may replace one that says more or something else.

    Raises:
        ExportError: for everything that the user can fix, before the model is loaded where that
            can be told; see `evaluation.adaptive.attack`.
    """
    manifest, budget = Manifest.read(directory), budget or Budget()
    if not isinstance(suite, Suite):
        suite = open_suites(suite or suites_at_hand(directory))
    judge = judge or RulesJudge()
    if not overwrite:
        _require_more(directory, suite, budget, judge)
    require_writable(directory)
    check_suite(directory, suite, manifest.calibration.source)
    return adaptive.attack(
        directory,
        suite,
        budget,
        judge=judge,
        batch_size=batch_size,
        device=device,
        progress=progress,
    )


def _require_more(directory: Path, suite: Suite, budget: Budget, judge: Judge) -> None:
    """Refuse to replace a record of attacks by one that says less or something else."""
    path = directory / ADAPTIVE_NAME
    try:
        present = Adaptive.model_validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return
    same = (present.suite.sha256, present.judge) == (suite.sha256, judge.name)
    if not same or not budget.covers(present.budget):
        raise ExportError(
            f"{path} holds attacks on {present.suite.name} with {present.budget.requests} requests "
            "of each kind, in another way or with a larger budget; give --overwrite to replace it"
        )
