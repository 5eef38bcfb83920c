"""The Python that a card shows, made from the card's facts and executed by a test."""

import json
from collections.abc import Iterable
from typing import Final

from mars_export.common.vocabulary import Modality, auto_class
from mars_export.families.quantization import NONE, SCHEMES

__all__ = ["check_snippet", "loading_snippet"]

_LOAD: Final = """\
{imports}

CHECKPOINT = {checkpoint}  # this directory, or its repository on the Hub

processor = AutoProcessor.from_pretrained(CHECKPOINT, trust_remote_code=True)
{model}

{content}
messages = [{{"role": "user", "content": content}}]
inputs = processor.apply_chat_template(
    messages, add_generation_prompt=True, tokenize=True, return_dict=True, return_tensors="pt"
).to(model.device)
output = model.generate(**inputs, max_new_tokens=64, do_sample=False)
print(processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))
"""

_IMAGE: Final = """\
image = Image.new("RGB", (224, 224), "steelblue")  # put your picture here
content = [{"type": "image", "image": image}, {"type": "text", "text": "What is shown here?"}]"""

_TEXT: Final = 'content = "What is the capital of France?"'

_CHECK: Final = """\
assert model.steering.enabled, "steering is switched off"
for row in model.steering.last:  # one row per request of the last generate() or forward()
    assert row, "this request was not steered: do not rely on this copy"
    for step in row:
        print(f"position {step.position}, {step.modality}, gate {step.gate:.2f}, "
              f"push {step.strength:.2f}")
"""


_PLAIN: Final = "model = {auto}.from_pretrained(CHECKPOINT, trust_remote_code=True)"

_QUANTISED: Final = """\
model = {auto}.from_pretrained(
    CHECKPOINT,
    trust_remote_code=True,
    dtype="{dtype}",
    quantization_config={config},  # as calibrated
)"""


def loading_snippet(
    repo_or_path: str,
    modalities: Iterable[Modality],
    dtype: str = "auto",
    quantization: str = NONE,
) -> str:
    """Python that loads a steered checkpoint and answers one request; needs no download but it.

    Args:
        repo_or_path: Hub repository or directory, as `from_pretrained` takes it.
        modalities: What the checkpoint takes; with `image` the request shows a picture made by PIL.
        dtype: Name of the torch dtype that it was calibrated in; stated where it is quantized.
        quantization: What it was calibrated for.
    """
    shown = set(modalities)
    auto = auto_class(shown)
    imports = f"from transformers import {auto}, AutoProcessor"
    image = "image" in shown
    scheme = SCHEMES.get(quantization)
    model = _PLAIN.format(auto=auto)
    if scheme is not None:
        imports = f"{scheme.imports}{imports}, {scheme.config}"
        model = _QUANTISED.format(auto=auto, dtype=dtype, config=scheme.code(dtype))
    return _LOAD.format(
        model=model,
        checkpoint=json.dumps(repo_or_path),
        imports=f"from PIL import Image\n{imports}" if image else imports,
        content=_IMAGE if image else _TEXT,
    )


def check_snippet() -> str:
    """Python that continues the loading snippet and shows what steering did to its request."""
    return _CHECK
