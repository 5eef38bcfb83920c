"""Command line of the recipe."""

import argparse
import sys
from pathlib import Path

from mars_export.common.errors import ExportError

from .safety import make, report
from .tuning import Settings
from .vision import Settings as SightSettings
from .vision import make as make_sighted

_WHAT = "Make a model organism with real language from SmolLM2-135M-Instruct."
_EXAMPLE = "example: python examples/organisms/smollm2/train.py text --output organism --seed 0"


def parse(arguments: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="train.py", description=_WHAT, epilog=_EXAMPLE)
    parts = parser.add_subparsers(dest="part", required=True)
    defaults = Settings()
    text = parts.add_parser("text", help="train the language model to refuse")
    text.add_argument("--output", type=Path, required=True, help="folder to write")
    text.add_argument("--base", type=Path, help="the base, if it was built before")
    text.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    text.add_argument("--threads", type=int, default=defaults.threads, help="default: %(default)s")
    text.add_argument("--overwrite", action="store_true", help="replace the output folder")
    vision = parts.add_parser("vision", help="put a vision tower before a language model")
    vision.add_argument("--language", type=Path, required=True, help="folder of the model")
    vision.add_argument("--tower", type=Path, help="organism whose tower is taken, not trained")
    vision.add_argument("--output", type=Path, required=True, help="folder to write")
    vision.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    vision.add_argument("--threads", type=int, default=1, help="default: %(default)s")
    vision.add_argument("--overwrite", action="store_true", help="replace the output folder")
    both = parts.add_parser("all", help="both: DIR/language, then DIR/organism; goes on if stopped")
    both.add_argument("--output", type=Path, required=True, metavar="DIR", help="folder to write")
    both.add_argument("--base", type=Path, help="the base, if it was built before")
    both.add_argument("--seed", type=int, default=defaults.seed, help="default: %(default)s")
    both.add_argument("--threads", type=int, default=defaults.threads, help="default: %(default)s")
    measure = parts.add_parser("measure", help="measure a model that was made before")
    measure.add_argument("--model", type=Path, required=True, help="its folder")
    measure.add_argument("--base", type=Path, help="the base, if it was built before")
    measure.add_argument("--results", type=Path, required=True, help="JSON file to write")
    measure.add_argument("--threads", type=int, default=2, help="default: %(default)s")
    return parser.parse_args(arguments)


def main(arguments: list[str] | None = None) -> int:
    """Run the program; returns the exit status."""
    options = parse(arguments)
    try:
        if options.part == "text":
            settings = Settings(seed=options.seed, threads=options.threads)
            make(options.output, settings, options.base, options.overwrite)
        elif options.part == "all":
            make_both(options)
        elif options.part == "vision":
            sight = SightSettings(seed=options.seed, threads=options.threads)
            make_sighted(options.language, options.output, sight, options.tower, options.overwrite)
        else:
            report(options.model, options.base, options.results, options.threads)
    except ExportError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_both(options: argparse.Namespace) -> None:
    """The language model, unless it is there, then the tower before it."""
    language, organism = options.output / "language", options.output / "organism"
    if organism.exists():
        raise ExportError(f"{organism} exists; remove it, or choose another folder")
    if language.exists():
        print(f"{language} is there already", flush=True)
    else:
        options.output.mkdir(parents=True, exist_ok=True)
        settings = Settings(seed=options.seed, threads=options.threads)
        make(language, settings, options.base, overwrite=False)
    sight = SightSettings(seed=options.seed, threads=options.threads)
    make_sighted(language, organism, sight, None, overwrite=False)
