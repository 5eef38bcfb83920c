"""Which tensor of a checkpoint is in which shard, read from the shards themselves."""

import re
from collections.abc import Callable, Collection
from math import prod
from pathlib import Path
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import require_inside
from mars_export.families.directory import read_json

__all__ = [
    "INDEX",
    "SINGLE",
    "located",
    "read_index",
    "read_metadata",
    "stored_bytes",
    "weight_map",
]

INDEX: Final = "model.safetensors.index.json"
SINGLE: Final = "model.safetensors"
_DTYPES: Final = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}
"""Dtype in a header to the name in torch."""


def weight_map(base: Path) -> dict[str, str]:
    """Tensor name to shard file name. Every header is read, no tensor is.

    Raises:
        ExportError: if there are no safetensors weights, or a shard is missing or damaged.
    """
    if (base / SINGLE).exists():  # wins over an index, as it does for Transformers
        return dict.fromkeys(_tensors(base / SINGLE), SINGLE)
    if not (base / INDEX).exists():
        raise ExportError(
            f"{base} holds no safetensors weights ({SINGLE} or {INDEX}); save the base with "
            "`save_pretrained`, which writes them"
        )
    index = read_index(base / INDEX)
    for shard in sorted(set(index.values())):
        if not _lies_beside(base / INDEX, shard):
            raise ExportError(f"{base / INDEX} names {shard!r}, which is not a file beside it")
    return located(index, lambda shard: _tensors(base / shard))


def stored_bytes(base: Path) -> dict[str, int]:
    """Bytes of the tensors of a checkpoint by the name of their torch dtype, from the headers.

    Raises:
        ExportError: as `weight_map`.
    """
    from safetensors import safe_open

    sizes: dict[str, int] = {}
    for shard in sorted(set(weight_map(base).values())):
        with safe_open(base / shard, "pt") as stream:
            for name in stream.keys():  # noqa: SIM118 - it is no dictionary
                part = stream.get_slice(name)
                stated = part.get_dtype()
                kind = _DTYPES.get(stated, stated)
                sizes[kind] = sizes.get(kind, 0) + _bits(stated) * prod(part.get_shape()) // 8
    return sizes


def _bits(dtype: str) -> int:
    """Bits of an element: the first number in the name of a dtype, as in `F8_E4M3`."""
    number = re.search(r"\d+", dtype)
    return int(number[0]) if number else 8  # BOOL


def located(index: dict[str, str], tensors: Callable[[str], Collection[str]]) -> dict[str, str]:
    """What an index says, as far as the shards agree; Transformers goes by the shards too.

    Entries of tensors that their shard does not hold are left out, and tensors without an entry
    are added.

    Args:
        index: Tensor name to shard file name.
        tensors: Names of the tensors in a shard.
    """
    held = {shard: set(tensors(shard)) for shard in sorted(set(index.values()))}
    where = {name: shard for name, shard in index.items() if name in held[shard]}
    for shard, names in held.items():
        for name in sorted(names):
            where.setdefault(name, shard)
    return where


def read_index(path: Path) -> dict[str, str]:
    """Tensor name to shard file name, as an index says.

    Raises:
        ExportError: if the file cannot be read or is no index that Transformers takes.
    """
    where = _index(path).get("weight_map")
    if not isinstance(where, dict) or not all(isinstance(name, str) for name in where.values()):
        raise ExportError(f"{path} has no `weight_map` of shard names; download the base again")
    read_metadata(path)
    return where


def read_metadata(path: Path) -> dict[str, Any]:
    """`metadata` of an index; `total_size` only where it is a number of bytes.

    Raises:
        ExportError: if there is none, as Transformers does not load such a model.
    """
    metadata = _index(path).get("metadata")
    if not isinstance(metadata, dict):
        raise ExportError(
            f"{path} has no object `metadata`, without which Transformers does not load it; add "
            '"metadata": {}'
        )
    size = metadata.get("total_size")
    if type(size) is int and size > 0:
        return dict(metadata)
    return {key: value for key, value in metadata.items() if key != "total_size"}


def _index(path: Path) -> dict[str, Any]:
    index = read_json(path)
    return index if isinstance(index, dict) else {}


def _tensors(shard: Path) -> list[str]:
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(shard, "pt") as stream:
            return sorted(stream.keys())
    except (SafetensorError, OSError) as error:
        pointer = _is_pointer(shard)
        problem = "is a pointer of Git LFS instead" if pointer else f"cannot be read ({error})"
        raise ExportError(
            f"{shard} is no whole safetensors file: it {problem}; download it again"
        ) from error


def _is_pointer(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            return stream.read(60).startswith(b"version https://git-lfs")
    except OSError:
        return False


def _lies_beside(path: Path, name: str) -> bool:
    try:
        return Path(require_inside(name)).name == name and path.with_name(name).is_file()
    except (OSError, ValueError):  # no name that a file can have
        return False
