"""Engines: what answers the requests of an evaluation.

`in_process` holds the model in this process, with Transformers; `endpoint` asks servers that speak
OpenAI's API. vLLM's is in `mars_export.integrations.vllm`.
"""
