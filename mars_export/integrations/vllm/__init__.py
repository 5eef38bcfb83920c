"""Serving steered checkpoints in vLLM.

`prompt_plan` and `prefix_cache` decide, `limits` refuses; they know nothing of vLLM. `worker` and
`scheduler` are the classes that vLLM is started with, and can be imported only where it is
installed.
"""
