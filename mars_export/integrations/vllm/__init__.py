"""Serving steered checkpoints in vLLM.

`packed` and `sharing` decide, `limits` refuses; they know nothing of vLLM. `worker` and `scheduler`
are the classes that vLLM is started with, and can be imported only where it is installed.
"""
