"""A bundled organism with fewer evaluation requests, for examples that run in a test."""

import json
import shutil
from pathlib import Path

from mars_export.pipeline.preflight import resolve_model


def shortened(name: str, target: Path, per_cell: int) -> Path:
    """Copy an organism, with the first `per_cell` evaluation requests of each cell."""
    shutil.copytree(resolve_model(f"organism:{name}"), target)
    counts: dict[tuple[str, bool], int] = {}
    kept = []
    for line in (target / "suite.jsonl").read_text("utf-8").splitlines():
        record = json.loads(line)
        cell = (record["modality"], record["harmful"])
        if record["split"] == "evaluation":
            counts[cell] = counts.get(cell, 0) + 1
        if counts.get(cell, 0) <= per_cell or record["split"] == "calibration":
            kept.append(line)
    (target / "suite.jsonl").write_text("\n".join(kept) + "\n", encoding="utf-8")
    return target
