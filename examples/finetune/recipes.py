"""Two ways to lose less safety in fine-tuning: averaged weights, and a fused safety adapter.

Run: python examples/finetune/recipes.py --steered DIR --work /somewhere
DIR is a steered Gemma 3 organism. It needs the extra `finetune` (peft, accelerate).
"""

import argparse
import copy
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from averaging import Averaging
from finetune import measure, print_table, train, with_lora
from recipe.batches import Encoder
from recipe.families import GEMMA3
from task import batches, safe

__all__ = ["fused", "main"]


def main(words: list[str] | None = None) -> None:
    """Train the task once and a safety adapter once; print a Markdown table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--steered", type=Path, required=True, help="steered organism")
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--suite", type=Path, required=True, help="suite.jsonl of the organism")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--decay", type=float, nargs="+", default=[0.98])
    parser.add_argument("--weight", type=float, nargs="+", default=[1.0])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(words)
    work: Path = options.work.resolve()
    work.mkdir(parents=True, exist_ok=True)

    adapted, processor = with_lora(options.steered, options.seed)
    encoder = Encoder(processor, GEMMA3.turn_end)
    averages = [Averaging(decay) for decay in options.decay]
    data = batches(encoder, options.steps, 16, options.seed)
    train(adapted, data, work / "runs", options.rate, options.seed, averages)
    made = {"tuned": _saved(adapted, processor, work / "tuned")}
    for average in averages:
        name = f"averaged, decay {average.decay:g}"
        with average.applied():
            made[name] = _saved(adapted, processor, work / f"averaged-{average.decay:g}")

    guarded, _ = with_lora(options.steered, options.seed)
    lessons = batches(encoder, options.steps, 16, options.seed + 1, safe)
    train(guarded, lessons, work / "runs", options.rate, options.seed)
    made["safety adapter alone"] = _saved(guarded, processor, work / "safety")
    guarded.save_pretrained(work / "adapter")
    adapted.load_adapter(str(work / "adapter"), "safety")
    for weight in options.weight:
        fused(adapted, ("default", "safety"), (1.0, weight), f"fused{len(made)}")
        name = f"fused, safety adapter by {weight:g}"
        made[name] = _saved(adapted, processor, work / f"fused-{weight:g}")

    made = {"steered": options.steered, **made}
    rows = {name: measure(folder, options.suite) for name, folder in made.items()}
    (work / "recipes.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    print_table(rows)


def fused(adapted: Any, names: Sequence[str], weights: Sequence[float], name: str) -> None:
    """Add adapters of one model, of any ranks, exactly; the sum is active (arXiv 2501.06208).

    Args:
        adapted: A peft model that holds them.
        names: Of the adapters.
        weights: Factor of each.
        name: Of their sum.
    """
    adapted.add_weighted_adapter(list(names), list(weights), name, combination_type="cat")
    adapted.set_adapter(name)


def _saved(adapted: Any, processor: Any, folder: Path) -> Path:
    """Save the active adapter merged; the model itself stays as it is."""
    copy.deepcopy(adapted).merge_and_unload().save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


if __name__ == "__main__":
    main()
