"""An evaluation that answers by rule and takes its time; tests kill it at any moment.

It runs everything there is: two suites, controls, attacks and batches that must be halved.
"""

import time
from pathlib import Path
from unittest.mock import patch

from evaluation.fakes import FakeLoaded

from mars_export.common.errors import ExportError
from mars_export.evaluation import evaluate as runner
from mars_export.evaluation import ready
from mars_export.evaluation.options import EvaluationOptions
from mars_export.evaluation.suites.catalog import open_suites


class SlowLoaded(FakeLoaded):
    """Waits before every answer."""

    pause = 0.0

    def answer(self, inputs, max_new_tokens, **options):
        time.sleep(self.pause if max_new_tokens > 2 else 0.0)
        return super().answer(inputs, max_new_tokens, **options)


def run(directory: Path, suite: Path, pause: float = 0.0):
    """Evaluate to the end."""
    SlowLoaded.pause = pause
    # `other` asks the same in other words, so that ids differ
    both = open_suites([str(suite), f"other={suite.parent.parent / 'other' / 'suite.jsonl'}"])
    everything = EvaluationOptions(batch_size=4, device="cpu", controls=True, attacks=True)
    with patch.object(ready, "load_calibrated", lambda *_: SlowLoaded(fits=3)):
        return runner.evaluate(directory, both, everything)


def run_noted(directory: Path, suite: Path, note: Path):
    """The same; why it was refused is left in a file."""
    try:
        run(directory, suite)
    except ExportError as error:
        note.write_text(str(error))
        raise
