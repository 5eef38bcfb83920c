"""Keeps advice that other libraries print for their own users out of the display."""

import os
import sys
import warnings

__all__ = ["quiet_libraries"]


def quiet_libraries() -> None:
    """Silence progress bars and advisory messages; errors still show.

    Python's own warnings stay when the user asks for them with `-W` or PYTHONWARNINGS.
    """
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "true")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if not sys.warnoptions:
        warnings.simplefilter("ignore")
