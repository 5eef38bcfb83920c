"""What an export writes, as data: the writer writes it, and verification compares with it."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from safetensors.torch import save

from mars_export.checkpoint.config import steered_config, unsteered_config
from mars_export.checkpoint.files import CheckpointFiles, tensor_sizes
from mars_export.checkpoint.manifest import Manifest
from mars_export.checkpoint.modeling import code_files
from mars_export.checkpoint.tensors import STEERING_NAME, steering_tensors, tensor_names
from mars_export.common.errors import ExportError
from mars_export.families import Family, family_of
from mars_export.families.directory import companions, is_companion, read_config
from mars_export.families.weights import (
    INDEX,
    SINGLE,
    located,
    read_index,
    read_metadata,
    weight_map,
)
from mars_export.methods.base import Artefact

__all__ = ["CALIBRATION", "Base", "ExpectedFiles", "expected", "named_tensors"]

CALIBRATION: Final = "calibration/"
_RENAMED: Final = {SINGLE: "model-00001-of-00002.safetensors"}
"""`model.safetensors` would win over the index, and the steering shard would not be read."""


class ExpectedFiles(NamedTuple):
    """Every file of a steered checkpoint but its manifest, by path."""

    copied: dict[str, str]
    """Path to the path of the base's file with the same bytes."""
    written: dict[str, bytes]


@dataclass(frozen=True)
class Base:
    """What an export reads of the base model.

    Attributes:
        family: Its family.
        config: Its config.json.
        weights: Tensor name to shard.
        index: `metadata` of its index, with `total_size` in bytes.
        companions: Tokenizer, processor, template and license files.
    """

    family: Family
    config: dict[str, Any]
    weights: dict[str, str]
    index: dict[str, Any]
    companions: tuple[str, ...]

    @classmethod
    def read(cls, directory: Path, family: Family | None = None) -> "Base":
        """A base model on this machine.

        Args:
            directory: The base model.
            family: Its family, where it is not one with a file (`inspect_family`).

        Raises:
            ExportError: if it is incomplete, damaged or not supported.
        """
        config = read_config(directory)
        weights = weight_map(directory)
        indexed = not (directory / SINGLE).exists()  # an index beside it is not read
        index = read_metadata(directory / INDEX) if indexed else {}
        if not index.get("total_size"):
            shards = {directory / name for name in weights.values()}
            index["total_size"] = sum(sum(tensor_sizes(shard).values()) for shard in shards)
        family = family or family_of(config["model_type"])
        paths = (path.relative_to(directory).as_posix() for path in companions(directory))
        return cls(family, config, weights, index, tuple(paths))

    @classmethod
    def published(cls, files: CheckpointFiles, family: Family) -> "Base":
        """A base model on the Hub, without a download of its weights.

        Raises:
            ExportError: if a file is missing or damaged.
        """
        config = read_config(files.fetch("config.json").parent)
        index = {} if SINGLE in files.sizes else read_metadata(files.fetch(INDEX))
        if SINGLE in files.sizes:
            weights = dict.fromkeys(files.tensors(SINGLE), SINGLE)
        else:
            weights = located(read_index(files.fetch(INDEX)), files.tensors)
        if not index.get("total_size"):
            sizes = (files.tensors(shard).values() for shard in set(weights.values()))
            index["total_size"] = sum(map(sum, sizes))
        return cls(family, config, weights, index, tuple(filter(is_companion, sorted(files.sizes))))

    @classmethod
    def beneath(cls, files: CheckpointFiles, manifest: Manifest, family: Family) -> "Base":
        """The base of a steered checkpoint, worked out from the checkpoint: an export, undone.

        Raises:
            ExportError: if config.json or the index is missing or not that of a steered checkpoint.
        """
        folder = files.fetch("config.json").parent
        config = unsteered_config(read_config(folder), folder)
        path = files.fetch(INDEX)
        weights = {n: shard for n, shard in read_index(path).items() if shard != STEERING_NAME}
        index = read_metadata(path)
        if isinstance(size := index.get("total_size"), int):
            index["total_size"] = size - sum(files.tensors(STEERING_NAME).values())
        paths = (entry.path for entry in manifest.files if is_companion(entry.path))
        return cls(family, config, weights, index, tuple(paths))


def expected(base: Base, artefact: Artefact) -> ExpectedFiles:
    """What an export of this calibration onto a base consists of.

    Raises:
        ExportError: if the calibration does not fit the base.
    """
    if artefact.record.source.model_type != base.family.model_type:
        raise ExportError(
            f"the calibration was made for {artefact.record.source.model_type!r}, the base is "
            f"{base.family.model_type!r}; calibrate this base"
        )
    config = steered_config(base.config, base.family, artefact.record, steering_tensors(artefact))
    tensors = named_tensors(base.family, artefact)
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    index = {
        "metadata": {**base.index, "total_size": base.index["total_size"] + size},
        "weight_map": {
            **{name: _RENAMED.get(shard, shard) for name, shard in base.weights.items()},
            **dict.fromkeys(tensors, STEERING_NAME),
        },
    }
    copied = {_RENAMED.get(shard, shard): shard for shard in sorted(set(base.weights.values()))}
    copied |= {path: path for path in base.companions}
    written = {
        **{f"{CALIBRATION}{name}": content for name, content in artefact.files().items()},
        STEERING_NAME: save(tensors, metadata={"format": "pt"}),
        "config.json": _json(config),
        INDEX: _json(index),
        **{
            name: source.encode()
            for name, source in code_files(base.family, artefact.record.method).items()
        },
    }
    return ExpectedFiles(copied, written)


def named_tensors(family: Family, artefact: Artefact) -> dict[str, torch.Tensor]:
    """The steering tensors by their names in the checkpoint."""
    return tensor_names(steering_tensors(artefact), family.decoder)


def _json(content: dict[str, Any]) -> bytes:
    text = json.dumps(content, indent=2, ensure_ascii=False) + "\n"
    try:
        return text.encode()
    except UnicodeEncodeError:  # half characters, which a base may hold as escapes
        return (json.dumps(content, indent=2) + "\n").encode()
