"""Write a steered directory: the base's shards as they are, one small shard, one modeling file."""

import json
import platform
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import save_file

from mars_export.checkpoint.config import steered_config
from mars_export.checkpoint.manifest import (
    MANIFEST_NAME,
    BaseModelSource,
    FileEntry,
    Manifest,
    TensorEntry,
)
from mars_export.checkpoint.modeling import MODELING_NAME, modeling_source
from mars_export.checkpoint.tensors import TENSORS_NAME, steering_tensors
from mars_export.common.errors import ExportError
from mars_export.families import Family, family_of
from mars_export.families.directory import (
    INDEX,
    SINGLE,
    companions,
    digest,
    read_config,
    read_json,
    reuse,
    weight_map,
    write_text,
)
from mars_export.families.quantization import SCHEMES
from mars_export.methods.base import Artefact

__all__ = ["CALIBRATION", "RENAMED", "write_checkpoint"]

CALIBRATION: Final = ("calibration/calibration.json", "calibration/calibration.safetensors")
RENAMED: Final = {SINGLE: "model-00001-of-00002.safetensors"}

Progress = Callable[[int, int], None]


def write_checkpoint(
    base: Path,
    target: Path,
    *,
    source: BaseModelSource,
    calibration_dir: Path,
    family: Family | None = None,
    progress: Progress | None = None,
) -> Manifest:
    """Write a complete steered directory; the model is never loaded.

    The manifest is written last, so a directory without one is not finished. The caller gives a
    staging directory as `target` and renames it when this returns.

    Args:
        base: Local directory of the base model.
        target: Directory to make; must not exist.
        source: Where the base comes from.
        calibration_dir: Holds calibration.json and calibration.safetensors.
        family: Family of the base, where it is not one with a file (`inspect_family`).
        progress: Told (bytes hashed, bytes in all).

    Raises:
        ExportError: if the base or the calibration does not fit.
        OSError: if the disk is full or not writable; the partial target is removed.
    """
    target.mkdir(parents=True)
    try:
        return _write(base, target, source, calibration_dir, family, progress)
    except BaseException:
        shutil.rmtree(target, ignore_errors=True)
        raise


def _write(
    base: Path,
    target: Path,
    source: BaseModelSource,
    calibration_dir: Path,
    family: Family | None,
    progress: Progress | None,
) -> Manifest:
    raw = read_config(base)
    family = family or family_of(raw["model_type"])
    calibration = _read_calibration(calibration_dir, raw)
    record = calibration.record
    for name in CALIBRATION:
        _copy_small(calibration_dir / Path(name).name, target / name)
    tensors = steering_tensors(calibration)
    where = weight_map(base)
    origins = _reuse_base(base, target, where)
    prefix = f"{family.decoder}.layers.{record.layers[0]}.steering"
    names = {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}
    _write_weights(base, target, where, names)
    config = steered_config(raw, family, record, tensors)
    write_text(target / "config.json", json.dumps(config, indent=2, ensure_ascii=False) + "\n")
    write_text(target / MODELING_NAME, modeling_source(family))

    manifest = Manifest(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        base=source,
        family_inspected=family.inspected,
        family_notes=list(family.notes),
        steering_sha256=config["steering"]["sha256"],
        modeling_file=MODELING_NAME,
        tensors=[
            TensorEntry(name=name, shape=list(t.shape), dtype="float32", norm=float(t.norm()))
            for name, t in names.items()
        ],
        files=_entries(target, origins, progress),
        calibration=record,
        versions=_versions(record.source.quantization),
    )
    write_text(target / MANIFEST_NAME, manifest.text())
    return manifest


def _copy_small(source: Path, target: Path) -> None:
    """Copy a small file; a link would let an edit of the one change the other."""
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source.resolve(), target)


def _read_calibration(directory: Path, raw: dict[str, object]) -> Artefact:
    calibration = Artefact.load(directory)
    if calibration.record.source.model_type != raw["model_type"]:
        raise ExportError(
            f"the calibration was made for {calibration.record.source.model_type!r}, the base is "
            f"{raw['model_type']!r}; calibrate this base"
        )
    return calibration


def _reuse_base(base: Path, target: Path, where: dict[str, str]) -> dict[str, str]:
    """Bring shards and companion files over; returns target path -> base path."""
    origins = {}
    for name in sorted(set(where.values())):
        # `model.safetensors` would win over the index, and the steering shard would not be read.
        new = RENAMED.get(name, name)
        reuse(base / name, target / new)
        origins[new] = name
    for path in companions(base):
        name = path.relative_to(base).as_posix()
        _copy_small(path, target / name)
        origins[name] = name
    return origins


def _write_weights(
    base: Path, target: Path, where: dict[str, str], tensors: dict[str, torch.Tensor]
) -> None:
    """Write the steering shard and the index; `where` is the base's, `tensors` have full names."""
    save_file(tensors, target / TENSORS_NAME, metadata={"format": "pt"})
    (target / TENSORS_NAME).chmod(0o644)
    metadata = read_json(base / INDEX).get("metadata", {}) if (base / INDEX).exists() else {}
    size = metadata.get("total_size") or _tensor_bytes(base, set(where.values()))
    metadata["total_size"] = size + sum(t.numel() * t.element_size() for t in tensors.values())
    shards = {name: RENAMED.get(shard, shard) for name, shard in where.items()}
    shards.update(dict.fromkeys(tensors, TENSORS_NAME))
    index = {"metadata": metadata, "weight_map": shards}
    write_text(target / INDEX, json.dumps(index, indent=2) + "\n")


def _tensor_bytes(base: Path, shards: set[str]) -> int:
    """Bytes of tensor data: a safetensors file is an 8-byte length, a header, and the data."""
    total = 0
    for name in shards:
        with (base / name).open("rb") as stream:
            header = int.from_bytes(stream.read(8), "little")
        total += (base / name).stat().st_size - 8 - header
    return total


def _entries(target: Path, origins: dict[str, str], progress: Progress | None) -> list[FileEntry]:
    paths = sorted(path for path in target.rglob("*") if path.is_file())
    total, done = sum(path.stat().st_size for path in paths), 0

    def count(size: int) -> None:
        nonlocal done
        done += size
        if progress:
            progress(done, total)

    rewritten = {"config.json": "config.json", INDEX: INDEX}
    entries = []
    for path in paths:
        name = path.relative_to(target).as_posix()
        base_path = origins.get(name)
        entries.append(
            FileEntry(
                path=name,
                sha256=digest(path, count),
                size=path.stat().st_size,
                origin="base" if base_path else "base-rewritten" if name in rewritten else "added",
                base_path=base_path or rewritten.get(name),
            )
        )
    return entries


def _versions(quantization: str) -> dict[str, str]:
    names = ["mars-export", "torch", "transformers", "safetensors"]
    names += [SCHEMES[quantization].package] if quantization in SCHEMES else []
    return {"python": platform.python_version(), **{name: _version(name) for name in names}}


def _version(name: str) -> str:
    from mars_export._version import __version__

    return __version__ if name == "mars-export" else version(name)
