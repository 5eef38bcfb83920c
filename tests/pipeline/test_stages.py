"""What makes finished stages stale."""

from types import SimpleNamespace

from evaluation.fakes import save_manifest

from mars_export.checkpoint.manifest import MANIFEST_NAME, Manifest
from mars_export.common.workspace import digests
from mars_export.pipeline import stages
from mars_export.pipeline.preflight import prepare
from mars_export.pipeline.settings import Settings


def test_a_new_export_of_an_arm_is_evaluated_again(tmp_path):
    save_manifest(tmp_path / "other")
    settings = Settings(model="organism:gemma3", arm=f"other={tmp_path / 'other'}")
    job = prepare(settings)
    workspace = SimpleNamespace(root=tmp_path, output=tmp_path / "steered")

    def digest_of_stages():
        return digests(stages._stages(workspace, job, settings))

    before = digest_of_stages()
    assert digest_of_stages() == before
    made_again = Manifest.read(tmp_path / "other").model_copy(update={"created": "2027-01-01"})
    (tmp_path / "other" / MANIFEST_NAME).write_text(made_again.text())
    after = digest_of_stages()
    assert after[:2] == before[:2]  # calibration and checkpoint
    assert after[2] != before[2]
