"""What a server imports before it forks: none of it starts a thread."""

import importlib

import transformers

for _name in ("Gemma3ForConditionalGeneration", "Qwen3VLForConditionalGeneration"):
    getattr(transformers, _name)
for _name in (
    "mars_export.card.render",
    "mars_export.cli.export",
    "mars_export.cli.main",
    "mars_export.cli.summary",
    "mars_export.evaluation.evaluate",
    "mars_export.pipeline.stages",
    "support.real_export",
    "support.slow_evaluation",
):
    importlib.import_module(_name)
