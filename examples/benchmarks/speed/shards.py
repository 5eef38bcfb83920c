"""Weights beyond those of a model, to make a checkpoint as large as wanted without running one."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from safetensors import safe_open

__all__ = ["fill", "forget"]

_INDEX = "model.safetensors.index.json"
_PIECE = 1 << 24


def fill(base: Path, total: int, shard: int) -> None:
    """Add shards of random bytes to a saved model until its weights have `total` bytes.

    Their tensors belong to no module: an export copies and hashes files and does not load them.
    """
    index = _index(base)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    generator, number = np.random.default_rng(0), 0
    while size < total:
        take = min(shard, total - size) // 2 * 2
        name = f"random-{number:05}.safetensors"
        _write(base / name, f"random.{number}", take, generator)
        index[f"random.{number}"] = name
        size, number = size + take, number + 1
    text = json.dumps({"metadata": {"total_size": size}, "weight_map": index})
    (base / _INDEX).write_text(text, encoding="utf-8")


def forget(paths: Iterable[Path]) -> None:
    """Write files out and drop them from the system's cache, where it offers that."""
    for path in paths:
        with path.open("rb") as stream:
            os.fsync(stream.fileno())
            if hasattr(os, "posix_fadvise"):
                os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)


def _index(base: Path) -> dict[str, str]:
    """Tensor name to file."""
    if (base / _INDEX).exists():
        found: dict[str, str] = json.loads((base / _INDEX).read_bytes())["weight_map"]
        return found
    first = base / "model-00001.safetensors"  # beside a `model.safetensors` no index is read
    (base / "model.safetensors").rename(first)
    with safe_open(first, "pt") as file:
        return dict.fromkeys(file.keys(), first.name)


def _write(path: Path, tensor: str, size: int, generator: np.random.Generator) -> None:
    entry = {"dtype": "BF16", "shape": [size // 2], "data_offsets": [0, size]}
    header = json.dumps({tensor: entry}).encode()
    with path.open("wb") as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        while size > 0:
            stream.write(generator.bytes(min(size, _PIECE)))
            size -= _PIECE
