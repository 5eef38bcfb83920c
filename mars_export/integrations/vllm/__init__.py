"""Serving steered checkpoints in vLLM.

`plugin` is what vLLM calls by itself. `prompt_plan` and `prefix_cache` decide, `steps` fills what a
forward reads, `limits` refuses; they know nothing of vLLM. `worker` and `scheduler` are the classes
that vLLM is started with, and can be imported only where it is installed.
"""
