"""What the one line of an error says."""

from itertools import pairwise

from mars_export.common.input_errors import reason


def failure(*errors):
    """The last of some exceptions, each raised from the one before."""
    for cause, error in pairwise(errors):
        error.__cause__ = cause
    return errors[-1]


def test_a_failed_import_says_why_it_failed():
    cause = RuntimeError("operator torchvision::nms does not exist")
    middle = ImportError("cannot import name x")
    lazy = ModuleNotFoundError("Could not import module 'AutoProcessor'. Are this object's ...")
    assert reason(failure(cause, middle, lazy)) == str(cause)
    assert reason(failure(cause, ValueError("a value of 3"))) == "a value of 3"
