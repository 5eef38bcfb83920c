"""A calibration that tests run in several processes."""

from pathlib import Path

import torch

from mars_export.methods import method_named
from support import planted


def run(method: str, folder: Path, rank: int = 0) -> None:
    """Calibrate a planted model, whose memory holds few requests; save what came out."""
    torch.set_num_threads(1)
    model = planted.PlantedModel()
    model.limit = 40  # batches of 64 are halved
    planted.calibrated(method, method_named(method).Options(), model).save(folder / str(rank))
