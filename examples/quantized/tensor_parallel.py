"""Answer one request with a steered checkpoint that is split over several processes.

Run: torchrun --standalone --nproc-per-node 2 examples/quantized/tensor_parallel.py DIRECTORY \
    --prompt "What is shown here?" --image picture.png
It needs neither mars-export nor a GPU; on GPUs the processes take one each.
"""

import argparse
from pathlib import Path

import torch
import transformers
from PIL import Image
from transformers.distributed import DistributedConfig


def main() -> None:
    """Load, answer, and check that every process steered in the same way."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("directory", type=Path)
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--image", type=Path)
    parser.add_argument("--max-new-tokens", type=int, default=64)
    options = parser.parse_args()

    model = transformers.AutoModelForImageTextToText.from_pretrained(
        options.directory,
        trust_remote_code=True,
        distributed_config=DistributedConfig(tp_plan="auto"),
    ).eval()
    processor = transformers.AutoProcessor.from_pretrained(
        options.directory, trust_remote_code=True
    )
    content = [{"type": "text", "text": options.prompt}]
    if options.image is not None:
        content.insert(0, {"type": "image", "image": Image.open(options.image).convert("RGB")})
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        add_generation_prompt=True,
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
    ).to(model.device)
    output = model.generate(**inputs, max_new_tokens=options.max_new_tokens, do_sample=False)
    answer = processor.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)

    # Each process holds a piece of every layer, and all of the steering and of the residual stream.
    told: list[object] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(told, model.steering.last)
    assert all(rows == told[0] for rows in told), "the processes steered differently"
    if torch.distributed.get_rank() == 0:
        for step in model.steering.last[0]:
            print(f"position {step.position}, {step.modality}, gate {step.gate:.4f}")
        print(answer)
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
