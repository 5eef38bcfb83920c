"""Run in two processes: loads checkpoints in parallel and writes what each rank saw of them.

Its arguments are a file of torch.save, which has name to (Auto class, directory, options of
DistributedConfig, batch), and the folder to write to.
"""

import os
import sys
from pathlib import Path

import torch
import transformers
from torch.distributed.tensor import DTensor
from transformers.distributed import DistributedConfig

GREEDY = {"max_new_tokens": 5, "do_sample": False}


def answers(auto, directory, options, batch):
    """Logits and tokens with steering on, logits with it off, and what steering tells of itself."""
    model = (
        getattr(transformers, auto)
        .from_pretrained(
            directory, trust_remote_code=True, distributed_config=DistributedConfig(**options)
        )
        .eval()
    )
    seen = {
        "sharded": sum(isinstance(p, DTensor) for p in model.parameters()),
        "logits": model(**batch).logits,
        "tokens": model.generate(**batch, **GREEDY),
    }
    if hasattr(model, "steering"):
        model.verify_steering()
        seen["last"] = [
            [(s.position, s.modality, s.gate, s.strength) for s in row]
            for row in model.steering.last
        ]
        model.steering.enabled = False
        seen["off"] = model(**batch).logits
    return seen


def main():
    jobs, folder = torch.load(sys.argv[1]), Path(sys.argv[2])
    torch.distributed.init_process_group("gloo")
    found = {}
    for name, job in jobs.items():
        try:
            with torch.no_grad():
                found[name] = answers(*job)
        except (RuntimeError, ValueError) as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"}
        torch.distributed.barrier()
    torch.save(found, folder / f"{os.environ['RANK']}.pt")
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
