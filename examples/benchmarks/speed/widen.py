"""A bundled organism with more work in each token, and the same answers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Final

import torch
from safetensors.torch import load_file, save_file

__all__ = ["widen"]

_ROWS: Final = ("gate_proj.weight", "up_proj.weight")
_COLUMNS: Final = ("down_proj.weight",)


def widen(model: Path, times: int) -> None:
    """Make the MLPs of a saved model's text decoder `times` as wide, with neurons that are zero.

    A model so small computes a token in less time than Python takes to call its layers. With wide
    MLPs the parts weigh as in a model of common size, and it still refuses and answers as before.
    """
    path, config_path = model / "model.safetensors", model / "config.json"
    config = json.loads(config_path.read_bytes())
    text = config.get("text_config", config)
    narrow = text["intermediate_size"]
    text["intermediate_size"] = narrow * times
    tensors = load_file(path)
    for name, tensor in tensors.items():
        if "vision" in name or "visual" in name:
            continue
        if name.endswith(_ROWS):
            more = tensor.new_zeros(narrow * (times - 1), tensor.shape[1])
            tensors[name] = torch.cat([tensor, more])
        elif name.endswith(_COLUMNS):
            more = tensor.new_zeros(tensor.shape[0], narrow * (times - 1))
            tensors[name] = torch.cat([tensor, more], 1).contiguous()
    path.unlink()
    save_file(tensors, path, metadata={"format": "pt"})
    config_path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
