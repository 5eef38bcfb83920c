"""Write a steered directory: the base's shards as they are, one small shard, its code."""

import json
import platform
import shutil
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

from mars_export._version import __version__
from mars_export.checkpoint.expected import Base, ExpectedFiles, expected, named_tensors
from mars_export.checkpoint.manifest import (
    MANIFEST_NAME,
    BaseModelSource,
    FileEntry,
    Manifest,
    TensorEntry,
)
from mars_export.checkpoint.modeling import MODELING_NAME
from mars_export.checkpoint.seal import write_seal
from mars_export.checkpoint.tensors import push_problem, steering_tensors
from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.families import Family
from mars_export.families.directory import digests, reuse, write_text
from mars_export.families.quantization import SCHEMES
from mars_export.families.weights import INDEX
from mars_export.methods.base import Artefact

__all__ = ["tensor_entries", "write_checkpoint"]

_REWRITTEN: Final = ("config.json", INDEX)


def write_checkpoint(
    base: Path,
    target: Path,
    *,
    source: BaseModelSource,
    calibration_dir: Path,
    family: Family | None = None,
    progress: Tick | None = None,
) -> Manifest:
    """Write a complete steered directory; the model is never loaded.

    The manifest is written last, then sealed; a directory without one is not finished. The caller
    gives a staging directory as `target` and renames it when this returns.

    Args:
        base: Local directory of the base model.
        target: Directory to make; must not exist.
        source: Where the base comes from.
        calibration_dir: Holds calibration.json and calibration.safetensors.
        family: Family of the base, where it is not one with a file (`inspect_family`).
        progress: Called with (bytes hashed, bytes in all).

    Raises:
        ExportError: if the base or the calibration does not fit, or the calibration can never push.
        OSError: if the disk is full or not writable; the partial target is removed.
    """
    model, artefact = Base.read(base, family), Artefact.load(calibration_dir)
    files = expected(model, artefact)
    steering = json.loads(files.written["config.json"])["steering"]
    if problem := push_problem(artefact.record, steering, steering_tensors(artefact)):
        raise ExportError(
            f"{calibration_dir}: with this calibration nothing would be steered: {problem}; "
            "calibrate again"
        )
    target.mkdir(parents=True)
    try:
        for path, source_path in files.copied.items():
            _copy(base / source_path, target / path)
        for path, content in files.written.items():
            (target / path).parent.mkdir(exist_ok=True)
            (target / path).write_bytes(content)
        manifest = Manifest(
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            base=source,
            family_inspected=model.family.inspected,
            family_notes=list(model.family.notes),
            steering_sha256=steering["sha256"],
            modeling_file=MODELING_NAME,
            tensors=tensor_entries(model.family, artefact),
            files=_entries(target, files, progress),
            calibration=artefact.record,
            versions=_versions(artefact.record.source.quantization),
        )
        write_text(target / MANIFEST_NAME, manifest.text())
        write_seal(target)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise
    return manifest


def tensor_entries(family: Family, artefact: Artefact) -> list[TensorEntry]:
    """What the manifest says of the steering tensors."""
    return [
        TensorEntry(name=name, shape=list(t.shape), dtype="float32", norm=float(t.norm()))
        for name, t in named_tensors(family, artefact).items()
    ]


def _copy(source: Path, target: Path) -> None:
    if source.suffix == ".safetensors":
        reuse(source, target)
        return
    target.parent.mkdir(exist_ok=True)
    # A link to a small file would let an edit of the one change the other.
    shutil.copyfile(source.resolve(), target)


def _entries(target: Path, files: ExpectedFiles, progress: Tick | None) -> list[FileEntry]:
    paths = sorted([*files.copied, *files.written])
    sizes = {path: (target / path).stat().st_size for path in paths}
    total, done = sum(sizes.values()), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress(done, total)

    made = digests([target / path for path in paths], count)
    return [
        FileEntry(
            path=path,
            sha256=sha256,
            size=size,
            origin="base"
            if path in files.copied
            else "base-rewritten"
            if path in _REWRITTEN
            else "added",
            base_path=files.copied.get(path) or (path if path in _REWRITTEN else None),
        )
        for (path, size), sha256 in zip(sizes.items(), made, strict=True)
    ]


def _versions(quantization: str) -> dict[str, str]:
    libraries = ["torch", "transformers", "safetensors"]
    libraries += [SCHEMES[quantization].package] if quantization in SCHEMES else []
    return {
        "python": platform.python_version(),
        "mars-export": __version__,
        **{name: version(name) for name in libraries},
    }
