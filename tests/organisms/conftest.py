"""Tests of the main job run on each bundled organism."""

import pytest

from support.organisms import FAMILIES


@pytest.fixture(params=FAMILIES)
def family(request):
    return request.param
