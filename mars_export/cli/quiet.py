"""Keeps advice that other libraries print for their own users out of the display."""

import os
import sys
import warnings
from logging import ERROR, getLogger
from typing import Final

__all__ = ["quiet_libraries"]

_NOISY: Final = ("bitsandbytes", "torch.utils._pytree", "torchao")
"""Quantizers warn of every dtype they convert and every GPU kernel that is not there."""


def quiet_libraries() -> None:
    """Silence progress bars and advisory messages; errors still show.

    Python's own warnings stay when the user asks for them with `-W` or PYTHONWARNINGS.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging

    for noisy in _NOISY:
        getLogger(noisy).setLevel(ERROR)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
