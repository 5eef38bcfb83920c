"""The main job on the bundled organisms, run once for all tests."""

import pytest

from support.organisms import run_main_job


@pytest.fixture(scope="session")
def steered(shared):
    """Directory of a steered organism; the job runs at the first call for a family."""

    def get(family):
        arguments = ("--model", f"organism:{family}", "--output", "steered")
        folder = shared(f"organism-{family}", lambda folder: run_main_job(*arguments, cwd=folder))
        return folder / "steered"

    return get
