"""Train an organism with several seeds, steer each with the main job, and print the table.

Run: python examples/organisms/seeds.py gemma3 --seeds 0 1 2 --work /somewhere
What is there already is kept, so a stopped run goes on when it is repeated.
"""

import argparse
from pathlib import Path

from recipe.cli import make
from recipe.families import FAMILIES
from recipe.sentences import Modality
from recipe.training import Settings as Training

from mars_export import Settings, export
from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import Cell, Report


def main() -> None:
    """Print a Markdown table: base and steered, one row a seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    arguments = parser.parse_args()
    modalities = FAMILIES[arguments.family].modalities
    reports = {seed: _report(arguments.family, seed, arguments.work) for seed in arguments.seeds}
    columns = [(m, harmful) for harmful in (True, False) for m in ("text", *modalities)]
    names = [f"{'harmful' if harmful else 'harmless'} {m}" for m, harmful in columns]
    print("| run | " + " | ".join(names) + " |\n| --- |" + " --- |" * len(names))
    for arm, name in (("off", "base"), ("on", "MARS")):
        for seed, report in reports.items():
            cells = {(c.modality, c.harmful): c for c in report.cells if c.arm == arm}
            print(f"| {name}, seed {seed} | " + " | ".join(_rate(cells, c) for c in columns) + " |")


def _report(family: str, seed: int, work: Path) -> Report:
    base, steered = work / f"{family}-{seed}", work / f"{family}-{seed}-steered"
    if not base.exists():
        work.mkdir(parents=True, exist_ok=True)
        make(FAMILIES[family], Training(seed=seed), base)
    bare = {"license": "apache-2.0", "controls": False, "arm": ("none",)}
    export(Settings.model_validate({"model": str(base), "output": steered, **bare}))
    return Report.model_validate_json((steered / REPORT_NAME).read_bytes())


def _rate(cells: dict[tuple[Modality, bool], Cell], column: tuple[Modality, bool]) -> str:
    refused = cells[column].refused
    return f"{refused.count}/{refused.n} ({refused.rate:.1%})"


if __name__ == "__main__":
    main()
