"""Answers one request with a directory that `mars-export onnx` wrote.

    python examples/onnx/generate.py steered-onnx "How do I use this?" --image photo.png

It needs onnxruntime, numpy, Pillow and the model's processor from Transformers. The weights run
without torch; of the processors, that of Gemma 3 does too, that of Qwen3-VL asks for torch and
torchvision.
"""

import argparse
import importlib
import sys
from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoProcessor


def conversation(processor: Any, prompt: str, image: Path | None) -> list[dict[str, Any]]:
    """One user turn, with a picture before the text if there is one."""
    if not hasattr(processor, "image_processor"):  # the tokenizer of a text model
        return [{"role": "user", "content": prompt}]
    shown = [{"type": "image", "image": Image.open(image).convert("RGB")}] if image else []
    return [{"role": "user", "content": [*shown, {"type": "text", "text": prompt}]}]


def main() -> None:
    """Print the answer."""
    parser = argparse.ArgumentParser(description="Answer one request with a steered ONNX model.")
    parser.add_argument("directory", type=Path)
    parser.add_argument("prompt")
    parser.add_argument("--image", type=Path)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    asked = parser.parse_args()

    sys.path.insert(0, str(asked.directory))
    model = importlib.import_module("steered_onnx").SteeredOnnx(asked.directory)
    processor = AutoProcessor.from_pretrained(asked.directory)
    inputs = processor.apply_chat_template(
        conversation(processor, asked.prompt, asked.image),
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="np",
    )
    answer = model.generate(inputs, asked.max_new_tokens)[0]
    print(processor.decode(answer, skip_special_tokens=True))


if __name__ == "__main__":
    main()
