"""Keeps advice that other libraries print for their own users out of the display."""

import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from logging import ERROR, getLogger
from typing import Final

__all__ = ["quiet_libraries", "without_advice"]

_NOISY: Final = ("accelerate", "bitsandbytes", "torch.utils._pytree", "torchao")
"""They warn of every dtype they convert, GPU kernel that is not there, and weight on the disk."""
_EXPORTERS: Final = (None, "torch", "transformers", "onnxscript")
"""Loggers of the exporters; None is the root logger, which onnxruntime writes to."""


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


@contextmanager
def without_advice() -> Iterator[None]:
    """Leave out what exporters print, warn of or log below errors while the block runs."""
    loggers = [getLogger(name) for name in _EXPORTERS]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(ERROR)
    try:
        with warnings.catch_warnings(), redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
