"""What a launcher such as torchrun says of this process in the environment. Free of torch."""

import os

__all__ = ["is_first_process", "local_process_count", "process_count"]


def process_count() -> int:
    """How many processes run this command."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def local_process_count() -> int:
    """How many of them run on this machine, and share its memory."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", process_count()))


def is_first_process() -> bool:
    """Whether this is the process that writes, of those that a launcher started."""
    return os.environ.get("RANK", "0") == "0"
