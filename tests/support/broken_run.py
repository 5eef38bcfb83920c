"""Ways in which one of two processes of a command ends."""

import os
import signal

from mars_export.common.errors import ExportError
from mars_export.families.processes import joined
from mars_export.methods import calibrate as calibration


def _calibrate(rank: int, failing: int, fail) -> None:
    """Let one rank fail where the other waits for its part of a calibration."""

    def calibrate(*_, **__):
        with joined() as processes:
            if rank == failing:
                fail()
            processes.wait()

    calibration.calibrate = calibrate


def _refuse():
    raise ExportError("no such direction")


def _crash():
    raise ZeroDivisionError


def _die():
    os.kill(os.getpid(), signal.SIGKILL)


def first_refuses(rank):
    _calibrate(rank, 0, _refuse)


def second_refuses(rank):
    _calibrate(rank, 1, _refuse)


def second_crashes(rank):
    _calibrate(rank, 1, _crash)


def second_dies(rank):
    _calibrate(rank, 1, _die)


def both_refuse(rank):
    _calibrate(rank, rank, _refuse)
