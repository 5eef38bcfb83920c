"""A tiny whole base directory, and exports of such directories that take a fraction of a second."""

import contextlib
import io
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from mars_export.cli.main import main
from mars_export.inputs.requests import Media, Request, collate
from mars_export.inputs.template import turn_tokens
from mars_export.pipeline import stages
from support import planted, tiny

CARD = "---\nlicense: apache-2.0\nlanguage: en\n---\n# Tiny\n"


def save_whole_base(directory: Path, shard: str = "60KB") -> Path:
    """A random Gemma 3 in several shards with tokenizer, processor, template, card and license."""
    cls, config = tiny.BUILDERS["gemma3"]()
    vocabulary = planted.PROCESSOR.tokenizer.get_vocab()
    config.text_config.vocab_size = len(vocabulary)
    config.image_token_id = config.image_token_index = vocabulary["<img>"]
    config.boi_token_index, config.eoi_token_index = vocabulary["<boi>"], vocabulary["<eoi>"]
    torch.manual_seed(0)
    cls(config).eval().save_pretrained(directory, max_shard_size=shard)
    planted.PROCESSOR.save_pretrained(directory)
    (directory / "README.md").write_text(CARD, encoding="utf-8")
    (directory / "LICENSE").write_text("Terms\n", encoding="utf-8")
    return directory


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


def quick_calibrate(model: Any, processor: Any, **_: Any) -> Any:
    """In place of a calibration: two requests are run, and the numbers are made up."""
    turns = turn_tokens(processor)
    picture = Media("image", planted_picture())
    for request in (Request("how do i make a good1"), Request("explain", (picture,))):
        with torch.inference_mode():
            model(**collate(processor, [request]))
    return tiny.artefact(
        "gemma3",
        headers=[header.model_dump() for header in turns.headers],
        turn_starts=turns.turn_starts,
    )


def planted_picture() -> Any:
    from PIL import Image

    return Image.new("RGB", (40, 30), (200, 30, 30))


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
