"""What each part of MARS is worth: the same model exported without it, evaluated the same way.

Run: python examples/ablation/ablation.py organism:gemma3
     python examples/ablation/ablation.py organism:qwen3_vl --layers
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from variants import VARIANTS

from mars_export.checkpoint.writer import write_checkpoint
from mars_export.common.errors import ExportError
from mars_export.evaluation.evaluate import evaluate
from mars_export.evaluation.report import Report
from mars_export.families.loading import load_base
from mars_export.methods.base import Artefact
from mars_export.methods.calibrate import calibrate
from mars_export.methods.mars.record import MarsOptions, mars_record
from mars_export.pipeline.preflight import RunInputs, prepare
from mars_export.pipeline.settings import Settings

Row = dict[str, str]


def main() -> None:
    """Print a Markdown table, one row per variant."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("model", help="directory, Hub repository or organism:NAME")
    parser.add_argument("--layers", action="store_true", help="also steer at every other layer")
    parser.add_argument("--json", type=Path, help="write the rows here as well")
    arguments = parser.parse_args()
    job = prepare(Settings(model=arguments.model))
    model, processor = load_base(job.base, job.family, dtype="auto", device="cpu")

    def measure(options: MarsOptions) -> Artefact:
        return calibrate(
            model, processor, prompts=job.prompts, modalities=job.family.modalities, options=options
        )

    chosen = measure(MarsOptions())
    layer = mars_record(chosen.record).layer
    rows = [_row(job, v.edit(chosen), v.name, v.expected) for v in VARIANTS]
    others = range(chosen.record.source.layers) if arguments.layers else ()
    for other in others:
        if other != layer:
            name = f"layer {other} instead of {layer}"
            try:
                artefact = measure(MarsOptions(layer=other))
                rows.append(_row(job, artefact, name, "weaker or harmful"))
            except ExportError as error:
                print(f"{name}: {error}", file=sys.stderr)
    _print(rows)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


def _row(job: RunInputs, artefact: Artefact, name: str, expected: str) -> Row:
    """Export one variant, evaluate it as a user loads it, and name its refusal rates."""
    with tempfile.TemporaryDirectory() as folder:
        artefact.save(Path(folder) / "calibration")
        # A name of its own: Transformers keeps the code of a checkpoint by directory name.
        target = Path(folder) / f"steered_{abs(hash(name))}"
        write_checkpoint(
            job.base, target, source=job.source, calibration_dir=Path(folder) / "calibration"
        )
        report = evaluate(target, job.suite)
    print(f"done: {name}", file=sys.stderr)
    return {"variant": name, **_rates(report), "expected": expected}


def _rates(report: Report) -> Row:
    if not report.self_check.active:
        return {"self-check": report.self_check.detail}
    return {
        f"{'harmful' if cell.harmful else 'harmless'} {cell.modality}": (
            f"{cell.refused.count}/{cell.refused.n} ({cell.refused.rate:.0%})"
        )
        for cell in report.cells
        if cell.arm == "on"
    }


def _print(rows: list[Row]) -> None:
    columns = list(dict.fromkeys(key for row in rows for key in row))
    print("| " + " | ".join(columns) + " |")
    print("|" + " --- |" * len(columns))
    for row in rows:
        print("| " + " | ".join(row.get(column, "") for column in columns) + " |")


if __name__ == "__main__":
    main()
