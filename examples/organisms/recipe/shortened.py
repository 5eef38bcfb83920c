"""A bundled organism with a shorter suite, for examples that run in a test."""

import json
import shutil
from pathlib import Path

from mars_export.pipeline.organisms import resolve_model


def shortened(name: str, target: Path, per_cell: int, per_label: int) -> Path:
    """Copy an organism with a part of its suite.

    Args:
        name: Of the organism.
        target: Folder to make.
        per_cell: Evaluation requests of each modality and label that are kept, the first ones.
        per_label: Calibration prompts of each label that are kept.
    """
    shutil.copytree(resolve_model(f"organism:{name}"), target)
    most = {"evaluation": per_cell, "calibration": per_label}
    counts: dict[tuple[str, str, bool], int] = {}
    lines = []
    for line in (target / "suite.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        cell = (record["split"], record["modality"], record["harmful"])
        counts[cell] = counts.get(cell, 0) + 1
        if counts[cell] <= most[record["split"]]:
            lines.append(line)
    (target / "suite.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return target
