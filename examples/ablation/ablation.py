"""What each choice of MARS is worth: the same requests, steered in many ways.

Run: python examples/ablation/ablation.py organism:gemma3 --work /somewhere
     python examples/ablation/ablation.py organism:qwen3_vl --work /somewhere --parts layers

What is done already is kept, so a stopped run goes on when it is repeated.
"""

import argparse
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from typing import Any, Final, NamedTuple, get_args

import torch
from answers import Answer, Key, answer, forecast
from conditions import Task
from counts import Row, counted, pooled
from in_memory import Rules
from study import Base, add_arguments, ask_the_base, calibration, calibration_cost, opened, planned
from tables import lanes, matrices
from variants import RULES, VARIANTS, Measured, measured

from mars_export.calibration.data import CalibrationData, MeasurementOptions
from mars_export.calibration.source import DirectionSource
from mars_export.common.atomic import replacing, write_atomically
from mars_export.common.errors import ExportError
from mars_export.common.plotting import png
from mars_export.inputs.drawings import KINDS, MIXTURE, PHOTO, photos_installed
from mars_export.inputs.prompts import PromptSet, from_files
from mars_export.methods.mars.record import MarsOptions

CONDITIONS: Final = (
    "text", "text, second turn", "text beside writing", "picture", "picture of 4", "pictures",
    "clip",
)  # fmt: skip
"""What settings are compared on, unless others are named."""
_LIMIT: Final = 30
_COUNTS: Final = (24, 48, 96, 192)
_DTYPES: Final = {
    "float32": ("float32", "none"),
    "bfloat16": ("bfloat16", "none"),
    "int8": ("bfloat16", "torchao-int8"),
}


class Setting(NamedTuple):
    """One way of steering one base."""

    name: str
    base: Base
    rules: Rules


@dataclass(frozen=True)
class Part:
    """A choice that is varied.

    Attributes:
        name: On the command line and in the results.
        title: For people.
        count: About how many settings, of a model with so many layers, for the forecast.
        settings: Makes them.
    """

    name: str
    title: str
    count: Callable[[int], int]
    settings: Callable[[Base, argparse.Namespace], Iterator[Setting]]


def main() -> None:
    """Run the parts, and write PART.json, PART.md and PART.png into the folder."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_arguments(parser)
    names = [part.name for part in PARTS]
    parser.add_argument("--parts", nargs="+", default=names, choices=names, help="only these")
    parser.add_argument("--seeds", type=int, default=5, help="calibrations of the part seeds")
    parser.set_defaults(limit=_LIMIT, conditions=list(CONDITIONS))
    arguments = parser.parse_args()
    try:
        base = opened(arguments)
        chosen = [part for part in PARTS if part.name in arguments.parts]
        _announce(base, arguments, chosen)
        for part in [] if arguments.plan else chosen:
            _run(part, base, arguments)
    except ExportError as error:
        parser.exit(1, f"{error}\n")


def _announce(base: Base, arguments: argparse.Namespace, chosen: Sequence[Part]) -> None:
    requests = planned(base, arguments)
    layers = base.model.model.config.get_text_config().num_hidden_layers
    runs = sum(part.count(layers) for part in chosen)
    base.display.note(
        f"{base.job.source.name}: {len(requests)} requests; steering off once and on in about "
        f"{runs} ways: {forecast(requests, base.model, 1 + runs)}; answers that steering leaves "
        f"alone cost one forward; {calibration_cost(base)}"
    )


def _run(part: Part, base: Base, arguments: argparse.Namespace) -> None:
    """Answer with every setting of a part, and write what comes of it."""
    results: dict[str, list[Row]] = {}
    asked: Base | None = None
    whole: list[Task] = []
    off: dict[Key, Answer] = {}
    for name, own, rules in part.settings(base, arguments):
        if own is not asked:
            asked = own
            whole, off = ask_the_base(own, arguments.conditions, arguments.limit)
        with own.display.stage(f"{part.name}: {name}") as tick:
            journal = own.journal(f"{part.name}-{name}", rules.digest)
            on = answer(whole, own.model, journal, tick, rules, off)
        results[name] = pooled([counted(off, on)])
    expected = {v.name: v.expected for v in VARIANTS} if part.name == "method" else {}
    written = {
        "model": base.job.source.name,
        "part": part.name,
        "limit": arguments.limit,
        "versions": {package: version(package) for package in ("torch", "transformers")},
        "settings": {name: [row.model_dump() for row in rows] for name, rows in results.items()},
    }
    text = f"# {base.job.source.name}: {part.title}\n\n{matrices(results, expected)}"
    target = base.work / part.name
    write_atomically(target.with_suffix(".json"), json.dumps(written, indent=1) + "\n")
    write_atomically(target.with_suffix(".md"), text)
    title = f"{base.job.source.name}: {part.title}"
    target.with_suffix(".png").write_bytes(png(lambda: lanes(results, title)))
    print(text)


def _from_one(
    name: str, take: Callable[[Measured], Iterable[tuple[str, Rules]]]
) -> Callable[[Base, argparse.Namespace], Iterator[Setting]]:
    """Settings that are all made from one measured model, which is measured once."""

    def settings(base: Base, _arguments: argparse.Namespace) -> Iterator[Setting]:
        path = base.work / "calibrations" / f"{name}.{base.digest[:12]}.pt"
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            with base.display.stage(f"calibration for {name}") as tick:
                steerings = [
                    (label, rules.rule.__name__, rules.tensors, rules.stated)
                    for label, rules in take(_measured(base, tick))
                ]
            with replacing(path) as temporary:
                torch.save(steerings, temporary)
        for label, rule, tensors, stated in torch.load(path, weights_only=True):
            yield Setting(label, base, Rules(RULES[rule], tensors, stated))

    return settings


def _measured(base: Base, tick: Any) -> Measured:
    model, family = base.model, base.job.family
    options = MeasurementOptions(batch_size=model.batch)
    data = CalibrationData(
        model.model, model.processor, base.job.prompts, family.modalities, options, progress=tick
    )
    return measured(data)


def _seeds(base: Base, arguments: argparse.Namespace) -> Iterator[Setting]:
    for seed in range(arguments.seeds):
        artefact = base.calibrated(f"seed-{seed}", partial(calibration, base, seed=seed))
        yield Setting(f"seed {seed}", base, Rules.of(artefact))


def _dtypes(_base: Base, arguments: argparse.Namespace) -> Iterator[Setting]:
    for name, (dtype, scheme) in _DTYPES.items():
        other = opened(arguments, dtype, scheme)
        artefact = other.calibrated(f"dtype-{name}", partial(calibration, other))
        yield Setting(name, other, Rules.of(artefact))


def _directions(base: Base, _arguments: argparse.Namespace) -> Iterator[Setting]:
    for source in get_args(DirectionSource):
        measure = partial(calibration, base, options=MarsOptions(direction=source))
        try:
            artefact = base.calibrated(f"direction-{source}", measure)
        except ExportError as error:
            base.display.note(f"left out: {source}: {error}")
            continue
        yield Setting(source, base, Rules.of(artefact))


def _kinds(base: Base, _arguments: argparse.Namespace) -> Iterator[Setting]:
    if base.job.family.modalities == ("text",):
        return
    choices = {kind: (kind,) for kind in KINDS if kind != PHOTO or photos_installed()}
    for name, kinds in {**choices, "mixture": MIXTURE}.items():
        artefact = base.calibrated(f"neutral-{name}", partial(calibration, base, kinds=kinds))
        yield Setting(name, base, Rules.of(artefact))


def _prompts(base: Base, _arguments: argparse.Namespace) -> Iterator[Setting]:
    """The first prompts of the seeded order, split as a user's own files are."""
    sets = (base.job.prompts.harmful, base.job.prompts.harmless)
    every = min(len(_all(s)) for s in sets)
    folder = base.work / "prompts"
    folder.mkdir(exist_ok=True)
    for count in [*(n for n in _COUNTS if n < every), every]:
        harmful, harmless = (folder / f"{label}-{count}.txt" for label in ("harmful", "harmless"))
        for file, prompts in zip((harmful, harmless), sets, strict=True):
            lines = [" ".join(prompt.split()) for prompt in _all(prompts)[:count]]
            write_atomically(file, "\n".join(lines) + "\n")
        fewer = partial(calibration, base, prompts=from_files(harmful, harmless))
        try:
            artefact = base.calibrated(f"prompts-{count}", fewer)
        except ExportError as error:
            base.display.note(f"left out: {count} prompts: {error}")
            continue
        yield Setting(f"{count} prompts a label", base, Rules.of(artefact))


def _all(prompts: PromptSet) -> list[str]:
    return [*prompts.direction, *prompts.decision, *prompts.check]


PARTS: Final = (
    Part("method", "without one part of the method", lambda _: len(VARIANTS),
         _from_one("method", Measured.parts)),
    Part("layers", "every single layer", lambda layers: layers + 2,
         _from_one("layers", Measured.every_layer)),
    Part("strength", "kappa, rho and the reserve", lambda _: 15,
         _from_one("strength", Measured.strengths)),
    Part("seeds", "seeds of the calibration", lambda _: 5, _seeds),
    Part("direction", "what the direction is estimated from", lambda _: 4, _directions),
    Part("prompts", "number of calibration prompts", lambda _: len(_COUNTS) + 1, _prompts),
    Part("dtype", "number formats", lambda _: 2 * len(_DTYPES), _dtypes),
    Part("neutral", "kinds of neutral stimuli", lambda _: len(KINDS) + 1, _kinds),
)  # fmt: skip


if __name__ == "__main__":
    main()
