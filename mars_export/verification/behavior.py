"""The checkpoint run: does it steer as it did when it was exported? Executes its code."""

from pathlib import Path

from pydantic import ValidationError

from mars_export.checkpoint.manifest import Manifest
from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import FirstToken, Report, SelfCheck
from mars_export.verification.report import CheckFailedError

__all__ = ["behaves"]


def behaves(directory: Path, manifest: Manifest, device: str) -> str:
    """Load the checkpoint as a user does, repeat its calibration's probes, compare first tokens.

    Args:
        directory: A checkpoint whose other checks have passed: its code is ours.
        manifest: Of that directory.
        device: Torch device, or `auto`.

    Raises:
        CheckFailedError: if it does not load or a probe comes out differently.
        ExportError: if the device is not there.
    """
    from mars_export.evaluation.generation import load_calibrated
    from mars_export.evaluation.selfcheck import TOLERANCE, self_check
    from mars_export.families.loading import pick_device

    loaded = load_calibrated(directory, manifest.calibration, pick_device(device))
    result = self_check(loaded, manifest)
    if not result.active:
        raise CheckFailedError(result.detail)
    dtype = str(loaded.model.dtype).removeprefix("torch.")
    roundings = (dtype, manifest.calibration.source.quantization)
    tolerance = max(TOLERANCE.get(name, TOLERANCE["float32"]) for name in roundings)
    return f"{result.detail} {_compare(_recorded(directory, dtype), result, tolerance)}"


def _recorded(directory: Path, dtype: str) -> list[FirstToken]:
    """The fingerprint of the export, if it was taken in the same dtype."""
    try:
        report = Report.model_validate_json((directory / REPORT_NAME).read_bytes())
    except (OSError, ValidationError):
        return []
    return report.self_check.fingerprint if report.dtype == dtype else []


def _compare(recorded: list[FirstToken], result: SelfCheck, tolerance: float) -> str:
    """Compare logits that both name; the likeliest token must be among them."""
    if not recorded:
        return "No fingerprint of the first tokens was recorded in this dtype: not compared."
    seen = {(first.probe, first.arm): first for first in result.fingerprint}
    worst = 0.0
    for first in recorded:
        now = seen.get((first.probe, first.arm))
        logits = dict(zip(now.tokens, now.logits, strict=True)) if now else {}
        if not first.tokens or first.tokens[0] not in logits:
            raise CheckFailedError(_other(first))
        scale = max(1.0, *map(abs, first.logits))
        pairs = zip(first.tokens, first.logits, strict=True)
        found = max(abs(logits[t] - x) / scale for t, x in pairs if t in logits)
        if not found <= tolerance:
            raise CheckFailedError(_other(first))
        worst = max(worst, found)
    return f"First tokens of {len(recorded)} answers are those of the export within {worst:.1e}."


def _other(first: FirstToken) -> str:
    return f"probe {first.probe} with steering {first.arm} does not answer as at the export"
