"""Arms made ready to answer: their checkpoints loaded, their baselines fitted."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mars_export.common.errors import ExportError, UnsteerableError
from mars_export.evaluation.arms import Arm
from mars_export.evaluation.baselines.study import Study
from mars_export.evaluation.generation import Loaded, load_calibrated
from mars_export.families.placement import Device, Placement
from mars_export.inputs.prompts import PromptSets

__all__ = ["Ready", "check_baselines", "fit", "load_models"]


@dataclass(frozen=True)
class Ready:
    """Arms that can answer.

    Attributes:
        arms: In order; those of baselines fitted.
        unfit: Name of an arm whose baseline this model cannot be fitted with, and why; none of
            them is among `arms`.
    """

    arms: tuple[Arm, ...]
    unfit: dict[str, str]


def check_baselines(arms: Sequence[Arm], prompts: PromptSets | None) -> None:
    """Refuse what can be known of baselines before anything is loaded.

    Raises:
        ExportError: One cannot be run beside this checkpoint, or needs prompts not at hand.
    """
    for arm in arms:
        if arm.baseline is None:
            continue
        fit = arm.baseline.fit_class
        fit.require(arm.manifest.calibration)
        if fit.fits_text and prompts is None:
            raise ExportError(
                f"--arm {arm.name}: it is fitted on the prompts that {arm.directory} was "
                "calibrated on, which are not at hand; leave this arm out, or export again"
            )


def load_models(arms: Sequence[Arm], device: Device, dtype: str | None) -> dict[Path, Loaded]:
    """The checkpoints of all arms by directory, each loaded once; they share a placement.

    Raises:
        ExportError: One does not load.
    """
    manifests = {arm.directory: arm.manifest for arm in arms}
    if isinstance(device, Placement):
        device = device.shared_by(len(manifests))
    return {
        directory: load_calibrated(directory, manifest.calibration, device, dtype)
        for directory, manifest in manifests.items()
    }


def fit(arms: Sequence[Arm], loaded: Loaded, prompts: PromptSets | None, batch_size: int) -> Ready:
    """Fit the baselines among the arms to a model; other arms stay as they are.

    Args:
        arms: Of one evaluation.
        loaded: The checkpoint that is evaluated; its steering is turned off.
        prompts: What it was calibrated on; None if no baseline is fitted on text.
        batch_size: Requests per forward.

    Raises:
        ExportError: A baseline cannot be fitted for another reason than the model.
    """
    study: Study | None = None
    ready, unfit = [], {}
    for arm in arms:
        if arm.baseline is None:
            ready.append(arm)
            continue
        study = study or Study(loaded, arm.manifest.calibration, prompts, batch_size)
        try:
            ready.append(arm.with_fit(arm.baseline.fit_class.fit(study)))
        except UnsteerableError as error:
            unfit[arm.name] = str(error)
        except ExportError as error:
            raise ExportError(f"--arm {arm.name}: {error}") from error
    return Ready(tuple(ready), unfit)
