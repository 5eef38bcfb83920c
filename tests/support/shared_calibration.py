"""Calibrations that tests run in several processes."""

from pathlib import Path

import torch

from mars_export.families.placement import Device, Placement
from mars_export.families.processes import joined
from mars_export.methods import method_named
from support import methods, planted

WAYS: dict[str, Device] = {"shared": "cpu", "split": Placement(device="cpu", split=True)}
"""How several processes go about the calibration of one model."""


def run(method: str, folder: Path, rank: int = 0) -> None:
    """Calibrate a planted model, whose memory holds few requests; save what came out."""
    torch.set_num_threads(1)
    model = planted.PlantedModel()
    model.limit = 40  # batches of 64 are halved
    planted.calibrated(method, method_named(method).Options(), model).save(folder / str(rank))


def organism(names: list[str], folder: Path) -> None:
    """Calibrate the organism by several methods, in all ways; the first process saves."""
    torch.set_num_threads(1)
    with joined() as processes:
        for name in names:
            for way, device in WAYS.items():
                made = methods.calibrated(name, method_named(name).Options(), device)
                if processes.rank == 0:
                    made.save(folder / way / name)
