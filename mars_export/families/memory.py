"""What a model takes of memory, worked out from its configuration: no weight is read.

Weights are exact. What a batch takes is an estimate, of the largest things that live at one time.
"""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from mars_export.families.directory import read_config
from mars_export.families.family import Family, decoder_layers
from mars_export.families.loading import native_class
from mars_export.families.quantization import OWN, SCHEMES, loading_options
from mars_export.families.weights import stored_bytes

__all__ = ["BatchSize", "Memory", "Weights", "built", "memory_of", "split_plan", "weights_of"]

_LOGITS: Final = 16
"""Bytes of a logit of the last column: as it is computed, then in float32 and in float64."""


@dataclass(frozen=True)
class Weights:
    """Parameters and buffers of a model, each counted once.

    Attributes:
        total: Bytes.
        by_dtype: The same by the name of the torch dtype; of a quantized model by its scheme.
        largest: Bytes of the largest part that has to be on one device, as a decoder layer.
        divided: Bytes that processes divide among them where each holds a part of every layer; 0
            where Transformers has no plan for that.
    """

    total: int
    by_dtype: dict[str, int]
    largest: int
    divided: int = 0

    def part(self, count: int) -> int:
        """Bytes that each of so many processes holds of a model that is split."""
        return self.total - self.divided + self.divided // count


@dataclass(frozen=True)
class BatchSize:
    """Requests that run at once.

    Attributes:
        rows: Requests.
        tokens: Of the longest of them, with those that stand for what it shows.
        answer: Tokens that are generated; 0 for calibration.
    """

    rows: int
    tokens: int
    answer: int = 0


@dataclass(frozen=True)
class Memory:
    """What a model takes.

    Attributes:
        weights: Of the model as it is loaded.
        dtype: Name of the torch dtype that it computes in.
        config: Its configuration.
    """

    weights: Weights
    dtype: str
    config: Any

    def batch(self, batch: BatchSize) -> int:
        """Bytes that a forward of a batch takes beside the weights, with its cache."""
        return self._activations(batch) + self._cache(batch)

    def rows(self, batch: BatchSize, free: int) -> int:
        """How many of the requests of a batch fit into so many bytes beside the weights."""
        one = self.batch(BatchSize(1, batch.tokens, batch.answer))
        return min(batch.rows, max(0, free) // one)

    def _activations(self, batch: BatchSize) -> int:
        """The residual stream twice, what is largest of a layer, the mask and the logits."""
        text = self.config.get_text_config()
        heads, keys, width = _heads(text)
        attention = width * (2 * heads + 2 * keys)
        layer = 2 * text.hidden_size + max(attention, 3 * _inner(text))
        tokens = batch.rows * batch.tokens
        logits = batch.rows * text.vocab_size * _LOGITS
        return int(self._bytes * tokens * (layer + batch.tokens) + logits)

    def _cache(self, batch: BatchSize) -> int:
        """Keys and values of every layer; those of shorter windows count as whole."""
        if not batch.answer:
            return 0
        text = self.config.get_text_config()
        _, keys, width = _heads(text)
        column = 2 * keys * width * text.num_hidden_layers
        return int(self._bytes * batch.rows * (batch.tokens + batch.answer) * column)

    @property
    def _bytes(self) -> int:
        import torch

        return int(getattr(torch, self.dtype).itemsize)


def _heads(text: Any) -> tuple[int, int, int]:
    """Heads of queries and of keys, and the width of each."""
    heads = text.num_attention_heads
    keys = getattr(text, "num_key_value_heads", None) or heads
    return heads, keys, getattr(text, "head_dim", None) or text.hidden_size // heads


def _inner(text: Any) -> int:
    """Width of the MLP, or of the experts that a token goes through."""
    dense = getattr(text, "intermediate_size", None) or 0
    expert = getattr(text, "moe_intermediate_size", None) or 0
    chosen = getattr(text, "num_experts_per_tok", None) or 0
    return max(dense, expert * chosen)


def memory_of(
    base: Path,
    family: Family,
    *,
    dtype: str,
    quantization: str,
    stated: dict[str, Any] | None = None,
) -> Memory:
    """What a base model takes as `load_base` would load it.

    Args:
        base: Directory of the base model; the headers of its shards are read.
        family: Names the native class.
        dtype: Name of a torch dtype, or `auto` for the one the checkpoint is saved in.
        quantization: `none`, `own` or a name of `quantization.SCHEMES`.
        stated: Its config.json; None to read it. A steered checkpoint has that of its base.
    """
    native = native_class(family)
    stated = stated or read_config(base)
    config = native.config_class.from_dict(dict(stated))
    stored = stored_bytes(base)
    if dtype == "auto":
        floating = (name for name in stored if "float" in name and "8" not in name)
        dtype = str(config.dtype or next(floating, "float32")).removeprefix("torch.")
    # Checked here: a scheme whose package is missing raises before anything is built.
    loading_options(stated, quantization, dtype=dtype, device="cpu")
    model = built(native, config, dtype)
    if quantization == OWN:
        return Memory(_stored(stored, weights_of(model)), dtype, config)
    return Memory(weights_of(model, quantization), dtype, config)


def built(native: Any, config: Any, dtype: str) -> Any:
    """A model of a configuration without memory, in the dtypes that loading gives it.

    Args:
        native: Class of Transformers.
        config: Its configuration, which is changed.
        dtype: Name of a torch dtype.
    """
    import torch

    config.dtype = getattr(torch, dtype)
    for name in config.sub_configs:
        if (part := getattr(config, name, None)) is not None:
            part.dtype = config.dtype
    before = torch.get_default_dtype()
    try:
        torch.set_default_dtype(config.dtype)
        with torch.device("meta"):
            model = native(config)
    finally:
        torch.set_default_dtype(before)
    for name, parameter in model.named_parameters():
        if _kept_whole(model, dtype) & set(name.split(".")):
            parameter.data = parameter.data.float()
    return model


def _kept_whole(model: Any, dtype: str) -> set[str]:
    """Modules that Transformers keeps in float32; a private table, and nothing if it goes away."""
    kept = {
        "_keep_in_fp32_modules_strict": {"float16", "bfloat16"},
        "_keep_in_fp32_modules": {"float16"},
    }
    names = (getattr(model, table, None) or () for table, cast in kept.items() if dtype in cast)
    return {name for table in names for name in table}


def weights_of(model: Any, quantization: str = "none") -> Weights:
    """Bytes of a model, loaded or on the meta device.

    Args:
        model: A Transformers model.
        quantization: Scheme that it is going to be loaded in; it then is an estimate.
    """
    sizes: Counter[str] = Counter()
    divided, plan = 0, split_plan(model)
    for name, kind, size in _tensors(model, quantization):
        sizes[kind] += size
        divided += size if _planned(name, plan) else 0
    parts = [*decoder_layers(model), model.get_input_embeddings(), model.get_output_embeddings()]
    largest = max(
        sum(size for *_, size in _tensors(part, quantization)) for part in parts if part is not None
    )
    return Weights(sum(sizes.values()), dict(sizes), largest, divided)


def split_plan(model: Any) -> set[str]:
    """Which tensors of a model processes divide, `*` for numbers; empty if not those of layers."""
    plan = getattr(model, "tp_plan", None) or {}
    names = {name for name, style in plan.items() if "replicated" not in style}
    return names if any(".layers.*." in f".{name}" for name in names) else set()


def _planned(name: str, plan: set[str]) -> bool:
    """Whether a plan names a tensor or its module."""
    general = re.sub(r"\.\d+(?=\.)", ".*", name)
    return not plan.isdisjoint({general, general.rpartition(".")[0]})


def _tensors(module: Any, quantization: str) -> Iterator[tuple[str, str, int]]:
    """Name, dtype or scheme, and bytes of each tensor."""
    quantized = _quantized(module) if quantization in SCHEMES else set()
    for name, tensor in (*module.named_parameters(), *module.named_buffers()):
        if name in quantized:
            yield name, quantization, round(tensor.numel() * SCHEMES[quantization].width)
        else:
            yield name, str(tensor.dtype).removeprefix("torch."), tensor.numel() * tensor.itemsize


def _quantized(module: Any) -> set[str]:
    """Weights of linear layers; the head stays as it is."""
    import torch

    head = module.get_output_embeddings() if hasattr(module, "get_output_embeddings") else None
    return {
        f"{name}.weight"
        for name, part in module.named_modules()
        if type(part) is torch.nn.Linear and part is not head
    }


def _stored(stored: dict[str, int], plain: Weights) -> Weights:
    """Of a model that is stored quantized, and loaded as it is stored."""
    total = sum(stored.values())
    share = total / plain.total
    return Weights(total, stored, round(plain.largest * share), round(plain.divided * share))
