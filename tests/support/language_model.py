"""Text-only models that follow instructions: the language models of the organisms."""

import json
import shutil

import transformers

from support.organisms import ORGANISMS

TEXT_OF = {"gemma3_text": "gemma3", "qwen3": "qwen3_vl"}
"""Text-only family to the organism whose language model is one of its checkpoints."""
KEPT = 16
"""Evaluation requests of each label; of calibration prompts four times as many."""


def language_model(model_type, folder):
    """The organism's language model as a checkpoint of its own, with the texts of its suite."""
    organism = ORGANISMS / TEXT_OF[model_type]
    full = transformers.AutoModelForImageTextToText.from_pretrained(organism)
    config = {
        **full.config.text_config.to_dict(),
        "model_type": model_type,
        "tie_word_embeddings": True,
    }
    if model_type == "qwen3":  # the three position axes of text are one
        config["rope_parameters"].pop("mrope_section")
    model = transformers.AutoModelForCausalLM.from_config(
        transformers.AutoConfig.for_model(**config)
    )
    decoder = full.get_decoder().state_dict()
    missing, unexpected = model.model.load_state_dict(decoder, strict=False)
    assert (missing, unexpected) == ([], [])
    model.generation_config = full.generation_config
    model.tie_weights()
    model.save_pretrained(folder)
    for name in ("tokenizer.json", "chat_template.jinja"):
        shutil.copy(organism / name, folder)
    (folder / "README.md").write_text("---\nlicense: apache-2.0\n---\n")
    tokenizer = json.loads((organism / "tokenizer_config.json").read_text())
    del tokenizer["processor_class"]
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    (folder / "suite.jsonl").write_text("".join(texts(organism / "suite.jsonl")))
    return folder


def texts(suite):
    counts = {}
    for line in suite.read_text("utf-8").splitlines(keepends=True):
        record = json.loads(line)
        cell = (record["split"], record["harmful"])
        if record["modality"] == "text":
            counts[cell] = counts.get(cell, 0) + 1
            if counts[cell] <= (KEPT if record["split"] == "evaluation" else 4 * KEPT):
                yield line
