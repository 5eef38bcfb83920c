"""The main job on the bundled organisms, run once for all tests."""

import pytest

from support.organisms import run_main_job


@pytest.fixture(scope="session")
def steered(tmp_path_factory):
    """Directory of a steered organism; the job runs at the first call for a family."""
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(f"organism-{family}")
            run_main_job("--model", f"organism:{family}", "--output", "steered", cwd=folder)
            made[family] = folder / "steered"
        return made[family]

    return get
