"""A steered checkpoint that somebody trained on: what steers it, and what lies beneath."""

import json
import shutil
from pathlib import Path
from typing import Any, Final

from safetensors import safe_open
from safetensors.torch import save_file

from mars_export.checkpoint.config import steering_rules, unsteered_config
from mars_export.checkpoint.manifest import MANIFEST_NAME
from mars_export.checkpoint.modeling import CODE_NAMES
from mars_export.checkpoint.tensors import LayerTensors, steering_digest, tensor_place
from mars_export.common.errors import ExportError
from mars_export.families.directory import read_json, reuse, write_text
from mars_export.families.weights import INDEX, SINGLE, weight_map

__all__ = ["native_config", "native_view", "read_steering"]

_OURS: Final = frozenset({"config.json", *CODE_NAMES, MANIFEST_NAME, INDEX, SINGLE})


def read_steering(directory: Path) -> tuple[dict[str, Any], LayerTensors]:
    """Steering rules and tensors of a steered directory, checked against their digest.

    It needs no manifest: `save_pretrained` of a trained model writes none.

    Raises:
        ExportError: if the directory is not steered, or its steering is not what was exported.
    """
    rules = steering_rules(_config(directory), directory)
    tensors: LayerTensors = {}
    for name, shard in weight_map(directory).items():
        if place := tensor_place(name):
            with safe_open(directory / shard, "pt") as stream:
                tensors.setdefault(place[0], {})[place[1]] = stream.get_tensor(name)
    if not tensors or steering_digest(rules, tensors) != rules.get("sha256"):
        raise ExportError(
            f"{directory}: the steering tensors or config.steering are absent or not the exported "
            "ones (SHA-256 differs); save the model again from one that loads"
        )
    return rules, tensors


def native_config(directory: Path) -> dict[str, Any]:
    """The config.json of the model beneath the steering.

    Raises:
        ExportError: if the directory is not steered.
    """
    return unsteered_config(_config(directory), directory)


def native_view(directory: Path, target: Path) -> None:
    """Make `target` the base that a calibration of a steered directory's weights starts from.

    Files are hard-linked where the file systems allow; only config.json, index and the shards with
    steering tensors are written anew. Times are kept, so that a run knows its input again.

    Args:
        directory: Steered checkpoint.
        target: Directory to make; replaced if it is there.

    Raises:
        ExportError: if the directory is not steered, or its steering is damaged.
    """
    read_steering(directory)
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir(parents=True)
    where = weight_map(directory)
    for entry in directory.iterdir():
        steers = entry.name in _OURS or entry.name in set(where.values())
        if entry.is_dir():
            shutil.copytree(entry, target / entry.name, copy_function=_link)
        elif not steers and not entry.name.startswith("."):
            reuse(entry, target / entry.name)
    for shard in sorted(set(where.values())):
        _unsteered_shard(directory / shard, target / shard)
    _write_like(directory / "config.json", target / "config.json", native_config(directory))
    kept = {name: shard for name, shard in where.items() if not _is_steering(name)}
    if set(kept.values()) != {SINGLE}:
        _write_like(directory / INDEX, target / INDEX, {"metadata": {}, "weight_map": kept})


def _link(source: str, target: str) -> None:
    reuse(Path(source), Path(target))


def _write_like(source: Path, target: Path, content: Any) -> None:
    """Write JSON with the times of `source`, which it stands for."""
    write_text(target, json.dumps(content, indent=2, ensure_ascii=False) + "\n")
    shutil.copystat(source, target)


def _unsteered_shard(source: Path, target: Path) -> None:
    """Bring a shard's tensors but those that steer; nothing if it has no others."""
    with safe_open(source, "pt") as stream:
        names = list(stream.keys())
        kept = [name for name in names if not _is_steering(name)]
        if len(kept) == len(names):
            reuse(source, target)
        elif kept:
            save_file({n: stream.get_tensor(n) for n in kept}, target, metadata={"format": "pt"})
            shutil.copystat(source, target)


def _is_steering(name: str) -> bool:
    """Whether a tensor steers; saved again, it may stand under another prefix."""
    return tensor_place(name) is not None


def _config(directory: Path) -> dict[str, Any]:
    if (directory / "adapter_config.json").exists() and not (directory / "config.json").exists():
        raise ExportError(
            f"{directory} holds an adapter; load it on the steered checkpoint, then "
            "merge_and_unload() and save_pretrained()"
        )
    raw = read_json(directory / "config.json")
    return raw if isinstance(raw, dict) else {}
