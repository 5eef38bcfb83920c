"""Load a steered checkpoint quantized, and see what that does to its gate and its refusals.

Run: python examples/quantized/quantized.py --work /somewhere
It needs the extra `quantized` (bitsandbytes, torchao, accelerate).
"""

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
import transformers
from torchao.quantization import Int8WeightOnlyConfig

sys.path.insert(0, str(Path(__file__).parents[1] / "organisms"))

from recipe.shortened import shortened

from mars_export import Settings, export
from mars_export.checkpoint.manifest import Manifest
from mars_export.evaluation.generation import Loaded, load_calibrated
from mars_export.evaluation.judges.base import Exchange
from mars_export.evaluation.judges.rules import RulesJudge
from mars_export.evaluation.suite import Sample, Suite, read_suite

# On CPUs with bfloat16 instructions bitsandbytes takes only layers whose width is a multiple of 64
# in 4 bits; `down_proj` of the organisms has 160 columns. Naming any layer leaves the defaults to
# us, so the head, which is tied to the embeddings, is named too.
LEFT_OUT = ["down_proj", "lm_head"]
SCHEMES: dict[str, Any] = {
    "bnb-8bit": transformers.BitsAndBytesConfig(load_in_8bit=True),
    "bnb-4bit": transformers.BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", llm_int8_skip_modules=LEFT_OUT
    ),
    "torchao-int8": transformers.TorchAoConfig(Int8WeightOnlyConfig()),
}
CALIBRATED = ("bnb-8bit", "torchao-int8")
"""Schemes that the main job calibrates the organisms in."""
ARMS = ("off", "on")
BATCH = 30

Gates = dict[str, list[float]]
"""Gate of every evaluation request, by cell such as `harmful image`."""


def main(words: list[str] | None = None) -> None:
    """Measure every scheme, loaded and calibrated in; print tables and write results.json."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    parser.add_argument("--organism", default="gemma3", choices=("gemma3", "qwen3_vl"))
    parser.add_argument("--scheme", nargs="*", default=list(SCHEMES), choices=SCHEMES)
    parser.add_argument("--calibrate", nargs="*", default=CALIBRATED, choices=CALIBRATED)
    parser.add_argument("--per-cell", type=int, default=120, help="requests a cell, at most 120")
    parser.add_argument("--per-label", type=int, default=480, help="prompts a label, at most 480")
    options = parser.parse_args(words)
    work: Path = options.work.resolve()
    base = shortened(options.organism, work / "organism", options.per_cell, options.per_label)
    suite = read_suite(base / "suite.jsonl")
    cells = _cells(suite)

    steered = _steered(base, work / "steered")
    rows: dict[str, dict[str, Any]] = {}
    unquantized: Gates = {}
    for scheme in (None, *options.scheme):
        row, gates = measure(load(steered, scheme), suite, cells)
        unquantized = unquantized or gates
        rows[scheme or "unquantized"] = {**row, "gate": compare(gates, unquantized)}
    for scheme in options.calibrate:
        directory = _steered(base, work / f"steered-{scheme}", scheme)
        loaded = load_calibrated(directory, Manifest.read(directory).calibration, "cpu")
        rows[f"{scheme}, calibrated in it"] = measure(loaded, suite, cells)[0]
    (work / "results.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")
    _print(rows, list(cells))


def load(directory: Path, scheme: str | None) -> Loaded:
    """The checkpoint as a user loads it, and a look at its steering, which no scheme may touch."""
    auto = transformers.AutoModelForImageTextToText
    model = auto.from_pretrained(
        directory,
        trust_remote_code=True,
        device_map="cpu",
        quantization_config=SCHEMES[scheme] if scheme else None,
    ).eval()
    steering = {name: b for name, b in model.named_buffers() if ".steering." in name}
    assert steering
    assert all(buffer.dtype == torch.float32 for buffer in steering.values())
    model.verify_steering()  # its digest is the exported one, bit for bit
    processor = transformers.AutoProcessor.from_pretrained(directory, trust_remote_code=True)
    return Loaded(model, processor)


def measure(
    loaded: Loaded, suite: Suite, cells: dict[str, list[Sample]]
) -> tuple[dict[str, int], Gates]:
    """Refusals of every cell with steering off and on, and the gates."""
    refusals: dict[str, int] = {}
    gates: Gates = {}
    for cell, samples in cells.items():
        refusals[f"{cell}, n"] = len(samples)
        for arm in ARMS:
            texts: list[str] = []
            for start in range(0, len(samples), BATCH):
                requests = [suite.request(s) for s in samples[start : start + BATCH]]
                answers = loaded.answer(loaded.inputs(requests), 16, steered=arm == "on")
                texts += answers.texts
                if arm == "on":
                    gates.setdefault(cell, []).extend(row[0].gate or 0.0 for row in answers.steered)
            asked = [Exchange(s.prompt, text) for s, text in zip(samples, texts, strict=True)]
            verdicts = [judgment.verdict for judgment in RulesJudge().judge(asked)]
            refusals[f"{cell}, {arm}"] = verdicts.count("refusal")
    return refusals, gates


def compare(gates: Gates, unquantized: Gates) -> dict[str, float]:
    """Differences of the gate from the unquantized model's, over all requests."""
    pairs = [pair for cell in gates for pair in zip(gates[cell], unquantized[cell], strict=True)]
    differences = [abs(now - before) for now, before in pairs]
    return {
        "largest": max(differences),
        "mean": sum(differences) / len(differences),
        "opened or shut": sum((now > 0) != (before > 0) for now, before in pairs),
    }


def _steered(base: Path, output: Path, scheme: str = "none") -> Path:
    settings = {"license": "apache-2.0", "max_new_tokens": 16, "quantization": scheme}
    bare = {"controls": False, "arm": ("none",)}
    values = {"model": str(base), "output": output, **settings, **bare}
    return export(Settings.model_validate(values))


def _cells(suite: Suite) -> dict[str, list[Sample]]:
    cells: dict[str, list[Sample]] = {}
    for sample in suite.evaluation_samples(("text", "image", "video")):
        name = f"{'harmful' if sample.harmful else 'harmless'} {sample.modality}"
        cells.setdefault(name, []).append(sample)
    return cells


def _print(rows: dict[str, dict[str, Any]], cells: Sequence[str]) -> None:
    print("| loaded as | " + " | ".join(cells) + " | gate: largest difference, mean |")
    print("|" + " --- |" * (len(cells) + 2))
    for name, row in rows.items():
        shown = [f"{row[c + ', off']} → {row[c + ', on']} of {row[c + ', n']}" for c in cells]
        gate = row.get("gate")
        said = f"{gate['largest']:.4f}, {gate['mean']:.4f}" if gate else ""
        print(f"| {name} | " + " | ".join(shown) + f" | {said} |")


if __name__ == "__main__":
    main()
