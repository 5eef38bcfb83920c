"""A tiny random Gemma 3 behind the page, whose steering acts on everything."""

import pytest

from mars_export.checkpoint.manifest import Manifest


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    from support import planted
    from support.worded import export_worded

    return export_worded(tmp_path_factory.mktemp("demo"), planted.processor(), origin=-1e6)[1]


@pytest.fixture(scope="session")
def subject(checkpoint):
    from mars_export.demo.asking import Subject
    from mars_export.demo.clouds import scale_of
    from mars_export.evaluation.generation import load

    manifest = Manifest.read(checkpoint)
    loaded = load(checkpoint, ("text", "image"), "cpu", None)
    scale = scale_of(manifest.calibration)
    return Subject("tiny", loaded, manifest, ("text", "image"), scale, 5)
