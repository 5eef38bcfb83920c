"""What a launcher such as torchrun says of this process in the environment. Free of torch."""

import os

from mars_export.common.errors import ExportError

__all__ = ["is_first_process", "local_process_count", "process_count"]


def process_count() -> int:
    """How many processes run this command.

    Raises:
        ExportError: The environment says something else than a number.
    """
    return _number("WORLD_SIZE", 1)


def local_process_count() -> int:
    """How many of them run on this machine, and share its memory."""
    return _number("LOCAL_WORLD_SIZE", process_count())


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that a launcher started."""
    return process_count() == 1 or os.environ.get("RANK", "0") == "0"


def _number(name: str, default: int) -> int:
    """What a launcher says; nothing, as an empty variable, is the default."""
    said = os.environ.get(name) or str(default)
    if not (said.isascii() and said.isdecimal() and int(said) > 0):
        raise ExportError(
            f"{name} is {said!r} in the environment, where launchers put a number of processes; "
            "unset it, or start with torchrun"
        )
    return int(said)
