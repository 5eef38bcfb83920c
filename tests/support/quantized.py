"""Tiny steered checkpoints, loaded quantized as users load them."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
import transformers

# Towers and projectors of the tiny models are too narrow for 4 bits on a CPU, and naming any layer
# leaves the defaults of Transformers to us: the head, tied to the embeddings, stays as it is.
NARROW = ["model.visual", "model.vision_tower", "model.multi_modal_projector", "lm_head"]
USES = {
    "bnb-8bit": "bitsandbytes 8-bit",
    "bnb-4bit": "bitsandbytes 4-bit",
    "torchao-int8": "torchao int8",
}


def configuration(scheme: str) -> Any:
    """A new `quantization_config`: models change the one that they are given."""
    if scheme == "torchao-int8":
        from torchao.quantization import Int8WeightOnlyConfig

        return transformers.TorchAoConfig(Int8WeightOnlyConfig())
    chosen = {"load_in_8bit": True}
    if scheme == "bnb-4bit":
        chosen = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}
        chosen["llm_int8_skip_modules"] = NARROW
    return transformers.BitsAndBytesConfig(**chosen)


def load(directory, scheme=None, **options):
    """Native or steered; `scheme` None loads it in what it was saved in."""
    if scheme:  # an explicit None would hide what config.json states
        options["quantization_config"] = configuration(scheme)
    return transformers.AutoModelForImageTextToText.from_pretrained(
        directory, trust_remote_code=True, **options
    ).eval()


@contextmanager
def logged_outputs(layer) -> Iterator[list[torch.Tensor]]:
    """Outputs of a layer, in the order in which it is called."""
    seen: list[torch.Tensor] = []
    handle = layer.register_forward_hook(lambda _m, _a, out: seen.append(out))
    try:
        yield seen
    finally:
        handle.remove()
