"""Tiny whole base directories, and exports of them that take a fraction of a second."""

import contextlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_export.cli.main import main
from mars_export.inputs.merges import tokenizer_of
from mars_export.inputs.template import turn_tokens
from mars_export.pipeline import stages
from support import planted, tiny, zoo

CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n"


KINDS = ("gemma3", "qwen3_vl", "llama")
"""Families: pictures, pictures and clips, text alone."""


def save_whole_base(directory: Path, family: str = "gemma3", shard: str = "250KB") -> Path:
    """A random model in several shards with tokenizer, processor, template, card and license."""
    cls, config = zoo.build(family)
    processor = _processor(family)
    tokenizer = tokenizer_of(processor)
    vocabulary = tokenizer.get_vocab()
    config.get_text_config().vocab_size = len(tokenizer)
    if family == "gemma3":
        config.image_token_id = config.image_token_index = vocabulary["<img>"]
        config.boi_token_index, config.eoi_token_index = vocabulary["<boi>"], vocabulary["<eoi>"]
    elif family == "qwen3_vl":
        for name in ("image_token", "video_token", "vision_start_token", "vision_end_token"):
            setattr(config, f"{name}_id", vocabulary[getattr(processor, name)])
        config.vision_config.patch_size = processor.image_processor.patch_size
    torch.manual_seed(0)
    cls(config).eval().save_pretrained(directory, max_shard_size=shard)
    processor.save_pretrained(directory)
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    (directory / "LICENSE").write_text("Terms\n", encoding="utf-8")
    return directory


def _processor(family: str) -> Any:
    if family == "gemma3":
        return planted.processor()
    if family == "qwen3_vl":
        processor = planted.video_processor()
        shown = "{% if c['type'] == 'image' %}<|image_pad|> {% elif"
        processor.chat_template = processor.chat_template.replace("{% if c", f"{shown} c", 1)
        processor.image_processor.size = processor.video_processor.size
        return processor
    tokenizer = planted.processor().tokenizer
    before, _, behind = planted.TEMPLATE.partition("{% for c in")
    said = behind.partition("{% endfor %}")[2]
    tokenizer.chat_template = f"{before}{{{{ m['content'] }}}} {said}"
    return tokenizer


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    errors: list[str]


def command(*arguments: object) -> Outcome:
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stopped:
            code = stopped.code
    return Outcome(int(code or 0), out.getvalue(), err.getvalue().splitlines())


def quick_calibrate(model: Any, processor: Any, *, modalities: Any, **_: Any) -> Any:
    """In place of a calibration, whose numbers are made up."""
    turns = turn_tokens(processor)
    return tiny.artefact(
        model.config.model_type,
        shift={modality: 0.0 if modality == "text" else 1.0 for modality in modalities},
        headers=[header.model_dump() for header in turns.headers],
        turn_starts=turns.turn_starts,
    )


@contextlib.contextmanager
def quick_exports():
    """While open, `mars-export --model` makes up its calibration and leaves out the evaluation."""
    whole = stages._stages
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mars_export.methods.calibrate.calibrate", quick_calibrate)
        patch.setattr(stages, "_stages", lambda *arguments: whole(*arguments)[:2])
        patch.setattr("mars_export.cli.summary.print_summary", lambda *_, **__: None)
        yield


def remove(place: Path) -> None:
    """Delete what was made."""
    shutil.rmtree(place, ignore_errors=True)


def copy_of(base: Path, target: Path) -> Path:
    """A copy whose files may be changed."""
    remove(target)
    return Path(shutil.copytree(base, target))
