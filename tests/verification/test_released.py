"""The list of modeling files that released versions wrote is complete and true."""

import hashlib
import re
from pathlib import Path

import mars_export
from mars_export import verify
from mars_export.checkpoint.released import Release, present, released
from mars_export.families import families
from mars_export.methods import METHODS

CHANGELOG = (Path(__file__).parents[2] / "CHANGELOG.md").read_text("utf-8")
DATED = re.findall(r"^## \[([\d.]+)\] - \d{4}-\d{2}-\d{2}$", CHANGELOG, re.MULTILINE)


def test_every_released_version_is_listed_and_no_other():
    assert re.search(rf"^## \[{re.escape(mars_export.__version__)}\] - ", CHANGELOG, re.MULTILINE)
    assert {release.version for release in released()} == set(DATED)
    assert all(
        re.fullmatch("[0-9a-f]{64}", digest)
        for release in released()
        for digest in (release.sha256, release.host_sha256)
    )


def test_a_released_version_still_writes_what_is_listed():
    """A changed file needs a new version number."""
    ours = {release for release in released() if release.version == mars_export.__version__}
    assert ours == (set(present()) if mars_export.__version__ in DATED else set())


def test_one_modeling_file_for_each_family_and_method():
    methods = [method.name for method in METHODS if method.exportable]
    assert [(release.model_type, release.method) for release in present()] == [
        (family, method) for family in families() for method in methods
    ]
    assert len({release.sha256 for release in present()}) == len(families()) * len(methods)


def test_what_an_older_version_wrote_is_known(steered, monkeypatch):
    digests = {}
    for key, name in (("sha256", "modeling_steered.py"), ("host_sha256", "steering_host.py")):
        old = f"# {name} of 0.0.9\n"
        (steered / name).write_text(old)
        digests[key] = hashlib.sha256(old.encode()).hexdigest()
    name = "mars_export.verification.checks.released"
    for of, status in (
        (("gemma3", "mars"), "passed"),
        (("llama", "mars"), "failed"),
        (("gemma3", "addition"), "failed"),
    ):
        model_type, method = of
        listed = (Release(version="0.0.9", model_type=model_type, method=method, **digests),)
        monkeypatch.setattr(name, lambda listed=listed: listed)
        (check,) = [c for c in verify(steered).checks if c.name == "modeling file"]
        assert check.status == status
