from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from support import tiny
from support.sharing import once_each


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Directories of base and steered checkpoint of a family, made once."""
    return once_each(tmp_path_factory, _export)


def _export(family, folder):
    base, steered = tiny.export(family, folder)
    direction = load_file(steered / "calibration/calibration.safetensors")["direction"]
    return SimpleNamespace(
        base=base,
        steered=steered,
        record=tiny.record(family),
        direction=direction,
        unit=direction / direction.norm(),
    )
