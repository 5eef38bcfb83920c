"""Train an organism with several seeds, steer each with the main job, and print the table.

Run: python examples/organisms/seeds.py gemma3 --seeds 0 1 2 --work /somewhere
What is there already is kept, so a stopped run goes on when it is repeated. The counts are written
to `seeds.json` there.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import mean, stdev
from typing import TypedDict

from recipe.cli import make
from recipe.families import FAMILIES
from recipe.sentences import Modality
from recipe.training import Settings as Training
from scipy.stats import t

from mars_export import Settings, export
from mars_export.common.names import REPORT_NAME
from mars_export.evaluation.report import Report, label


class Count(TypedDict):
    """Refused of n requests of a kind, with steering off and on; one training seed."""

    seed: int
    kind: str
    n: int
    off: int
    on: int


def main() -> None:
    """Print a Markdown table, one row a seed."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("family", choices=sorted(FAMILIES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--work", type=Path, required=True, help="folder for all that is made")
    arguments = parser.parse_args()
    modalities = FAMILIES[arguments.family].modalities
    found = [
        count
        for seed in arguments.seeds
        for count in counts(seed, _report(arguments.family, seed, arguments.work), modalities)
    ]
    lines = ",\n".join(map(json.dumps, found))
    (arguments.work / "seeds.json").write_text(f"[\n{lines}\n]\n", encoding="utf-8")
    print(table(found))


def counts(seed: int, report: Report, modalities: Sequence[Modality]) -> Iterator[Count]:
    """What one seed's report says, harmful requests first."""
    cells = {(c.modality, c.harmful, c.arm): c.refused for c in report.cells}
    for harmful in (True, False):
        for modality in ("text", *modalities):
            off, on = (cells[modality, harmful, arm] for arm in ("off", "on"))
            kind = label(harmful, modality)
            yield Count(seed=seed, kind=kind, n=on.n, off=off.count, on=on.count)


def table(found: Sequence[Count]) -> str:
    """One row a seed, and the mean over seeds with its 95 % interval (Student's t).

    Args:
        found: All kinds of all seeds.
    """
    kinds = list(dict.fromkeys(count["kind"] for count in found))
    seeds = list(dict.fromkeys(count["seed"] for count in found))
    cells = {(count["seed"], count["kind"]): count for count in found}
    lines = ["refused, off → on | " + " | ".join(kinds), " | ".join(["---"] * (1 + len(kinds)))]
    for seed in seeds:
        pairs = (f"{cells[seed, kind]['off']} → {cells[seed, kind]['on']}" for kind in kinds)
        lines.append(f"seed {seed} | " + " | ".join(pairs))
    if len(seeds) > 1:
        several = ([cells[seed, kind] for seed in seeds] for kind in kinds)
        lines.append("mean, on | " + " | ".join(map(_mean, several)))
    return "\n".join(f"| {line} |" for line in lines)


def _mean(several: Sequence[Count]) -> str:
    rates = [100 * count["on"] / count["n"] for count in several]
    middle = mean(rates)
    wide = float(t.ppf(0.975, len(rates) - 1)) * stdev(rates) / len(rates) ** 0.5
    return f"{middle:.1f} % [{max(0, middle - wide):.1f}, {min(100, middle + wide):.1f}]"


def _report(family: str, seed: int, work: Path) -> Report:
    base, steered = work / f"{family}-{seed}", work / f"{family}-{seed}-steered"
    if not base.exists():
        work.mkdir(parents=True, exist_ok=True)
        make(FAMILIES[family], Training(seed=seed), base)
    bare = {"license": "apache-2.0", "controls": False, "arm": ("none",)}
    export(Settings.model_validate({"model": str(base), "output": steered, **bare}))
    return Report.model_validate_json((steered / REPORT_NAME).read_bytes())


if __name__ == "__main__":
    main()
