"""`mars-export onnx DIR`: a steered directory as ONNX graphs."""

from pathlib import Path
from typing import TYPE_CHECKING

import click

from mars_export.cli.options import DIRECTORY, as_json, print_json
from mars_export.cli.printable import printable
from mars_export.common.quiet import quiet_libraries

if TYPE_CHECKING:
    from mars_export.integrations.onnx.record import Onnx

__all__ = ["onnx"]


@click.command()
@click.argument("directory", type=DIRECTORY)
@click.option(
    "--output",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="Directory to make; appears complete and checked or not at all.  [default: NAME-onnx]",
)
@click.option("--int8", is_flag=True, help="Weights of matrix products in int8; steering stays.")
@click.option("--overwrite", is_flag=True, help="Replace an ONNX export that is already there.")
@as_json
def onnx(directory: Path, output: Path | None, int8: bool, overwrite: bool, as_json: bool) -> None:
    """Write the steered DIRECTORY as ONNX graphs that steer by themselves.

    Vision encoder, token embedding and one decoder for prompt and answer, checked with onnxruntime
    against PyTorch; nothing is written if they differ. Needs the extra `onnx`.
    """
    from mars_export.integrations.onnx import require_extra

    require_extra()
    from mars_export.common.progress import progress_for
    from mars_export.integrations.onnx.export import export_onnx

    quiet_libraries()
    target = output or Path(f"{directory.resolve().name}-onnx")
    record = export_onnx(
        directory, target, int8=int8, overwrite=overwrite, progress=progress_for("auto")
    )
    if as_json:
        print_json({"directory": str(target), **record.model_dump(mode="json")})
        return
    for line in _lines(record):
        click.echo(printable(line), err=True)
    click.echo(printable(str(target)))


def _lines(record: "Onnx") -> list[str]:
    """The numbers that say whether the graphs can be used."""
    lines = []
    for modality in dict.fromkeys(p.modality for p in record.parity):
        own = [p for p in record.parity if p.modality == modality]
        lines.append(
            f"{modality}: {len(own)} answers of {min(p.tokens for p in own)} greedy tokens equal "
            f"to PyTorch's, logits within {max(max(p.logits, p.decoded) for p in own):.1e}; "
            f"steering changes them by up to {max(p.effect for p in own):.1f}"
        )
    if record.int8:
        found = record.int8
        lines.append(
            f"int8: {found.tokens:.1%} of greedy tokens equal to float32's, logits within "
            f"{found.logits:.2f}, gates within {found.gate:.3f} (tolerance "
            f"{found.gate_tolerance}), {found.decisions:.1%} open or shut alike"
        )
        if found.suite_requests:
            lines.append(
                f"int8 on the suite: {found.suite_alike} of {found.suite_requests} requests "
                "refused or answered alike"
            )
    if record.model.left_out:
        lines.append(f"left out: {record.model.left_out}")
    return lines
