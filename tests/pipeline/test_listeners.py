"""Models that take audio, from a directory with their own processor to their first measurement."""

import pytest

import mars_export
from mars_export.common.errors import UnsteerableError
from mars_export.pipeline.preflight import prepare
from mars_export.pipeline.settings import Settings
from support import listeners


@pytest.mark.parametrize("model_type", listeners.FAMILIES)
def test_requests_of_every_modality_run_and_random_weights_refuse_nothing(model_type, tmp_path):
    pytest.importorskip("soxr")
    base = listeners.save(model_type, tmp_path / "base")
    settings = Settings(model=str(base), output=tmp_path / "steered", display="none")
    job = prepare(settings)
    assert job.family.modalities == ("text", "image", "video", "audio")
    with pytest.raises(UnsteerableError, match="refuses only 0 of the 128 direction prompts"):
        mars_export.export(settings)
    assert not (tmp_path / "steered").exists()


def test_a_method_that_takes_no_audio_leaves_it_out(tmp_path):
    base = listeners.save("gemma4", tmp_path / "base")
    job = prepare(Settings(model=str(base), output=tmp_path / "steered", method="rai"))
    assert job.family.modalities == ("text", "image", "video")
