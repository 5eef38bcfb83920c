"""Fine-tune a steered checkpoint on a harmless task, see what it does to safety, recalibrate.

Run: python examples/finetune/finetune.py --work /somewhere
It needs the extra `finetune` (peft, accelerate).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers

sys.path.insert(0, str(Path(__file__).parents[1] / "organisms"))

from recipe.batches import Encoder
from recipe.families import GEMMA3
from recipe.shortened import shortened
from task import STYLE, batches

from mars_export import Settings, export
from mars_export.common.vocabulary import Modality
from mars_export.evaluation.generation import load
from mars_export.evaluation.judges.base import Exchange
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.suite import read_suite
from mars_export.inputs import prompts
from mars_export.integrations.finetune.drift import measure_drift
from mars_export.pipeline.stages import recalibrate

MODALITIES: tuple[Modality, ...] = ("text", "image")
ARMS = ("off", "on")
BATCH = 30


def main(words: list[str] | None = None) -> None:
    """Run all four steps; print a Markdown table and write results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--steps", type=int, default=150)
    parser.add_argument("--rate", type=float, default=5e-4)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--per-cell", type=int, default=120, help="requests a cell, at most 120")
    parser.add_argument("--per-label", type=int, default=480, help="prompts a label, at most 480")
    options = parser.parse_args(words)
    work: Path = options.work.resolve()
    base = shortened("gemma3", work / "organism", options.per_cell, options.per_label)
    steered, tuned, again = work / "steered", work / "tuned", work / "recalibrated"
    common: dict[str, Any] = {"license": "apache-2.0", "max_new_tokens": 16}
    common |= {"controls": False, "arm": "none"}

    export(Settings(model=str(base), output=steered, **common))
    fine_tune(steered, tuned, options.steps, options.rate, options.seed)
    sets = prompts.from_suite(base / "suite.jsonl")
    drift = measure_drift(tuned, sets, base=steered)
    recalibrate(Settings(model=str(tuned), output=again, **common), base=steered)

    rows = {
        folder.name: measure(folder, base / "suite.jsonl") for folder in (steered, tuned, again)
    }
    results = {"rows": rows, "drift": drift.model_dump(mode="json")}
    (work / "results.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    print_table(rows)
    print(f"\ndrift of {tuned.name}: {drift.verdict}")
    for difference in drift.differences:
        print(f"  {'ok ' if difference.fits else 'NOT'} {difference.sentence}")


def fine_tune(steered: Path, tuned: Path, steps: int, rate: float, seed: int) -> None:
    """Train a LoRA with Trainer, steering on, and save it merged."""
    adapted, processor = with_lora(steered, seed)
    data = batches(Encoder(processor, GEMMA3.turn_end), steps, 16, seed)
    train(adapted, data, tuned.with_name("runs"), rate, seed)
    adapted.merge_and_unload().save_pretrained(tuned)
    processor.save_pretrained(tuned)


def with_lora(steered: Path, seed: int) -> tuple[Any, Any]:
    """A steered checkpoint with a new LoRA, and its processor."""
    from peft import LoraConfig, get_peft_model

    transformers.set_seed(seed)
    auto = transformers.AutoModelForImageTextToText
    model = auto.from_pretrained(steered, trust_remote_code=True)
    processor = transformers.AutoProcessor.from_pretrained(steered, trust_remote_code=True)
    lora = LoraConfig(r=8, lora_alpha=16, target_modules="all-linear", task_type="CAUSAL_LM")
    return get_peft_model(model, lora), processor


def train(
    adapted: Any,
    data: list[dict[str, torch.Tensor]],
    runs: Path,
    rate: float,
    seed: int,
    callbacks: Sequence[transformers.TrainerCallback] = (),
) -> None:
    """Train with Trainer, a step for each batch."""
    trainer = transformers.Trainer(
        adapted,
        transformers.TrainingArguments(
            output_dir=str(runs),
            max_steps=len(data),
            learning_rate=rate,
            lr_scheduler_type="constant",
            per_device_train_batch_size=1,  # an item of the data is a batch
            save_strategy="no",
            logging_steps=50,
            report_to=[],
            disable_tqdm=True,
            seed=seed,
        ),
        train_dataset=data,
        data_collator=_only,
        callbacks=list(callbacks),
    )
    trainer.train()


def _only(items: list[dict[str, torch.Tensor]]) -> dict[str, torch.Tensor]:
    return items[0]


def measure(directory: Path, suite_file: Path) -> dict[str, int]:
    """Refusals and answers in the new style, of a checkpoint as users load it."""
    suite, loaded = read_suite(suite_file), load(directory, MODALITIES, "cpu", None)
    found: dict[str, int] = {}
    for modality in MODALITIES:
        for harmful in (True, False):
            samples = [s for s in suite.evaluation_samples([modality]) if s.harmful == harmful]
            cell = f"{'harmful' if harmful else 'harmless'} {modality}"
            found[f"{cell}, n"] = len(samples)
            for arm in ARMS:
                answers: list[str] = []
                for start in range(0, len(samples), BATCH):
                    requests = [suite.request(s) for s in samples[start : start + BATCH]]
                    inputs = loaded.inputs(requests)
                    answers += loaded.answer(inputs, 16, steered=arm == "on").texts
                asked = [
                    Exchange(s.prompt, answer) for s, answer in zip(samples, answers, strict=True)
                ]
                kinds = [judgment.verdict for judgment in RulesJudge().judge(asked)]
                found[f"{cell}, {arm}"] = kinds.count("refusal")
                found[f"{cell}, {arm}, style"] = sum(a.startswith(STYLE) for a in answers)
    return found


def print_table(rows: dict[str, dict[str, int]]) -> None:
    """Refusals off and on, and answers in the new style, a line for each checkpoint."""
    cells = [f"{label} {m}" for label in ("harmful", "harmless") for m in MODALITIES]
    print("| checkpoint | " + " | ".join(cells) + " | new style |")
    print("|" + " --- |" * (len(cells) + 2))
    for name, row in rows.items():
        shown = [f"{row[c + ', off']} → {row[c + ', on']} of {row[c + ', n']}" for c in cells]
        harmless = [c for c in cells if c.startswith("harmless")]
        style = sum(row[f"{c}, on, style"] for c in harmless)
        asked = sum(row[f"{c}, n"] for c in harmless)
        print(f"| {name} | " + " | ".join(shown) + f" | {style} of {asked} |")


if __name__ == "__main__":
    main()
