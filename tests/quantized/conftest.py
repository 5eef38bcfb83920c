from types import SimpleNamespace

import pytest
from safetensors.torch import load_file

from support import tiny


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """Directories of base and steered checkpoint of a family, made once."""
    made = {}

    def get(family):
        if family not in made:
            folder = tmp_path_factory.mktemp(family)
            base, steered = tiny.export(family, folder)
            direction = load_file(steered / "calibration/calibration.safetensors")["direction"]
            made[family] = SimpleNamespace(
                base=base,
                steered=steered,
                record=tiny.record(family),
                direction=direction,
                unit=direction / direction.norm(),
            )
        return made[family]

    return get
