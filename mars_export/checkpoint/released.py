"""Code that released versions wrote into checkpoints, by digest.

`python -m mars_export.checkpoint.released >> mars_export/checkpoint/released.jsonl` adds those of
the present version when it is released.
"""

import hashlib
from functools import cache
from importlib.resources import files

from mars_export._version import __version__
from mars_export.checkpoint.modeling import HOST_NAME, MODELING_NAME, code_files
from mars_export.common.record import Record
from mars_export.families import families
from mars_export.methods import METHODS

__all__ = ["Release", "present", "released"]


class Release(Record):
    """What one version wrote for one family and method."""

    version: str
    model_type: str
    method: str
    sha256: str
    """Of `modeling_steered.py`."""
    host_sha256: str
    """Of `steering_host.py`."""


@cache
def released() -> tuple[Release, ...]:
    """What the released versions wrote, oldest first."""
    text = (files("mars_export.checkpoint") / "released.jsonl").read_text("utf-8")
    return tuple(Release.model_validate_json(line) for line in text.splitlines())


def present() -> tuple[Release, ...]:
    """What this version writes."""
    return tuple(
        Release(
            version=__version__,
            model_type=family.model_type,
            method=method.name,
            sha256=_sha256(code[MODELING_NAME]),
            host_sha256=_sha256(code[HOST_NAME]),
        )
        for family in families().values()
        for method in METHODS
        if method.exportable
        for code in (code_files(family, method.name),)
    )


def _sha256(source: str) -> str:
    return hashlib.sha256(source.encode()).hexdigest()


if __name__ == "__main__":
    for release in present():
        print(release.model_dump_json())
