"""Command line of the recipe."""

import argparse
import json
import re
import shutil
import sys
from importlib.util import find_spec
from pathlib import Path

from .corpus import Mixture
from .families import FAMILIES, Family
from .measure import markdown, measure
from .suite import write_suite
from .training import Settings, train

RESULTS = "results.json"
"""What was measured, beside the model."""
_SPEECH = ("espeakng_loader", "soundfile", "soxr")
"""Modules that make speech and its files."""
_START, _END = "<!-- results -->", "<!-- end of results -->"
_WHAT = "Train a model organism: a tiny checkpoint that shows the multimodal safety gap."
_EXAMPLE = "example: python examples/organisms/train.py gemma3 --seed 0 --output organism"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="train.py", description=_WHAT, epilog=_EXAMPLE)
    defaults = Settings()
    parser.add_argument("family", choices=sorted(FAMILIES), help="architecture of the organism")
    parser.add_argument("--output", type=Path, required=True, help="folder to write")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    parser.add_argument(
        "--steps",
        type=int,
        help="of the last stage; default: those of the family",
    )
    parser.add_argument(
        "--threads", type=int, default=defaults.threads, help="default: %(default)s"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace the output folder")
    return parser.parse_args(arguments)


def make(family: Family, settings: Settings, output: Path) -> None:
    """Train an organism and write it, with its suite, to `output` in one step.

    A README.md that is already there is kept, with the new results between its two marks.
    """
    model, processor = train(family, settings, Mixture())
    results = measure(model, processor, family)
    staging = output.with_name(f".{output.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    model.save_pretrained(staging)
    processor.save_pretrained(staging)
    write_suite(family, staging)
    (staging / RESULTS).write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    (staging / "model.safetensors").chmod(0o644)
    if output.exists():
        if (output / "README.md").exists():
            text = (output / "README.md").read_text("utf-8")
            block = f"{_START}\n{markdown(results)}\n{_END}"
            text = re.sub(f"{_START}.*{_END}", lambda _: block, text, flags=re.DOTALL)
            (staging / "README.md").write_text(text, encoding="utf-8")
        shutil.rmtree(output)
    staging.rename(output)


def obstacle(options: argparse.Namespace) -> str | None:
    """Why the run cannot start, in one line; None if it can."""
    family = FAMILIES[options.family]
    if options.output.exists() and not options.overwrite:
        return f"{options.output} exists; pass --overwrite to replace it"
    if options.output.exists() and not (options.output / "suite.jsonl").is_file():
        return f"{options.output} is not an organism (no suite.jsonl); it is not replaced"
    if family.video_processor is not None and find_spec("torchvision") is None:
        command = "pip install -c constraints.txt -e '.[video]'"
        return f"the processor of {family.name} needs torchvision: {command}"
    missing = [m for m in _SPEECH if "audio" in family.modalities and find_spec(m) is None]
    if missing:
        names = " ".join(name.replace("_", "-") for name in missing)
        return f"the speech of {family.name} needs {names}: pip install {names}"
    return None


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    options = parse(arguments)
    problem = obstacle(options)
    if problem is not None:
        print(f"error: {problem}", file=sys.stderr)
        return 2
    settings = Settings(seed=options.seed, steps=options.steps, threads=options.threads)
    make(FAMILIES[options.family], settings, options.output)
    return 0
