"""Plausible manifests and reports for card tests; numbers are made up, their relations are not."""

import hashlib
import random
import re
from collections import Counter
from functools import cache
from statistics import fmean

from scipy.stats import binomtest

from mars_export.card.outcomes import changes, outcome_of
from mars_export.checkpoint.manifest import BaseModelSource, FileEntry, Manifest, TensorEntry
from mars_export.common.vocabulary import MODALITIES
from mars_export.evaluation import aggregate
from mars_export.evaluation.changes import FEWEST, corrected, finding
from mars_export.evaluation.failures import failures
from mars_export.evaluation.judges.quality import kappa_of, no_correction
from mars_export.evaluation.report import (
    Agreement,
    ArmSource,
    BrokenPair,
    CategoryResult,
    Cell,
    CutPair,
    HarmPair,
    MacroMean,
    Pair,
    Part,
    PooledTest,
    Rate,
    Report,
    SampleResult,
    SelfCheck,
    SuiteResult,
    SuiteSource,
    VariantResult,
    undecided,
)
from mars_export.evaluation.statistics import one_sided, paired_change
from mars_export.evaluation.utility import Metric, TaskUtility, Utility
from mars_export.evaluation.variants import CONTROLS, VARIANTS
from mars_export.inputs.drawings import MIXTURE
from mars_export.inputs.stimuli import STIMULI
from mars_export.methods.base import Decision, Probe, PromptSource, StimulusSource
from mars_export.methods.mars.record import (
    Check,
    Condition,
    Coordinates,
    LayerScore,
    Margin,
    Quantiles,
    Shift,
)
from support.artefacts import mars_artefact

VERSIONS = {
    "mars-export": "0.1.0",
    "python": "3.11.9",
    "safetensors": "0.8.0",
    "torch": "2.13.0",
    "transformers": "5.23.0",
}
OUTCOMES = {
    # (harmful, modality): (both refused, newly refused, newly answered, both answered)
    (True, "text"): (118, 1, 0, 1),
    (True, "image"): (4, 112, 0, 4),
    (True, "video"): (6, 103, 1, 10),
    (False, "text"): (1, 0, 1, 118),
    (False, "image"): (0, 2, 0, 118),
    (False, "video"): (0, 0, 0, 120),
}


def sha(text):
    return hashlib.sha256(text.encode()).hexdigest()


def calibration(modalities=("text", "image", "video"), **changes):
    rng = random.Random(0)
    shift = {"text": 0.0, "image": 2.61, "video": 3.4}
    scores = [
        LayerScore(
            layer=layer,
            consistency=0.35 + 0.09 * layer - 0.01 * layer**2,
            separability=4.0 + 6.1 * layer - 0.55 * layer**2,
            margin=0.2 + 0.25 * layer - 0.024 * layer**2,
            combined=None if layer in (0, 7) else 0.3 * layer - 0.036 * layer**2,
            excluded={0: "below 0.2 of the depth", 7: "beyond 0.8 of the depth"}.get(layer),
            separation=3.0 + layer,
            shift={m: shift[m] * (0.6 + 0.1 * layer) for m in modalities},
            groups=[
                Quantiles(
                    label=label, modality=m, low=middle - 0.1, middle=middle, high=middle + 0.15
                )
                for label, middle in (("harmful", 0.4 + 0.08 * layer), ("harmless", 0.0))
                for m in modalities
            ],
            induced=4.2 - 0.4 * abs(layer - 4) if layer in (3, 4, 5) else None,
            kl=0.012 * layer if layer in (3, 4, 5) else None,
            lift=9.1 - 0.8 * layer if layer in (3, 4, 5) else None,
        )
        for layer in range(8)
    ]

    def cloud(middle, spread, n):
        return [round(rng.gauss(middle, spread), 4) for _ in range(n)]

    visual = [m for m in modalities if m != "text"]
    clouds = {("harmful", "text"): (4.1, 0.7), ("harmless", "text"): (-4.0, 0.8)}
    clouds |= {("harmless", m): (-3.8, 1.0) for m in visual}
    projections = [
        Coordinates(label=label, modality=m, values=cloud(*place, 48))
        for (label, m), place in clouds.items()
    ]
    harmless = [
        # name, moved, spread, left after the shift, bound over R, treatment
        ("plain", 0.0, 0.0, 0.0, 0.2, "origin"),
        ("second turn", 0.31, 0.04, 0.02, 0.21, "shift"),
        ("system prompt", 0.03, 0.02, 0.03, 0.2, "none"),
    ]
    shown = [
        ("two stimuli", 0.14, 0.03, 0.01, 0.19, "shift"),
        ("noise", -0.05, 0.04, -0.05, 0.17, "none"),
        ("writing", 0.52, 0.11, 0.52, 0.83, "left out"),
    ]
    conditions = [
        Condition(
            name=name, modality=m, n=48, refused=int(name == "second turn"), moved=moved,
            spread=spread, rest=rest, share=abs(moved) / 0.6, bound=bound, treatment=treatment,
        )
        for m in modalities
        for name, moved, spread, rest, bound, treatment in harmless + shown * (m in visual)
    ]  # fmt: skip
    checks = [
        Check(
            name=name, modality=m, n=40, open=12 if name == "writing" else 0,
            bound=0.44 if name == "writing" else 0.072, kl=0.002, refusals=0,
        )
        for m in modalities
        for name in ("all", *(c.name for c in conditions if c.modality == m))
    ]  # fmt: skip
    values = {
        "model_type": "qwen3_vl",
        "layer": 4,
        "layers": 8,
        "hidden_size": 128,
        "dtype": "bfloat16",
        "separation": 8.1,
        "harmful": 4.05,
        "harmless": -4.05,
        "shift": {
            m: Shift(tokens=[0], values=[0.0], turns=[0.0, 0.4])
            if m == "text"
            else Shift(
                tokens=[16, 32, 64],
                values=[shift[m], 1.1 * shift[m], 1.3 * shift[m]],
                turns=[0.0, 0.9, 1.2],
                plain=16,
            )
            for m in modalities
        },
        "origin": {m: -2.2 if m == "text" else -1.9 for m in modalities},
        "conditions": conditions,
        "checks": checks,
        "margins": [Margin(modality=m, n=40, open=39, low=0.31, median=0.64) for m in modalities],
        "compression": dict.fromkeys(visual, 0.84),
        "confidence": {m: 0.95 if m == "text" else 0.91 for m in modalities},
        "cap": 5.3,
        "gain": 2.0,
        "radius": 1.0,
        "refusal_tokens": [40, 2121],
        "scores": scores,
        "prompts": {
            "harmful": PromptSource(
                name="harmful-1",
                sha256=sha("harmful"),
                license="CC-BY-4.0",
                direction=128,
                decision=48,
                check=40,
                dropped=3,
            ),
            "harmless": PromptSource(
                name="harmless-1",
                sha256=sha("harmless"),
                license="Apache-2.0",
                direction=128,
                decision=48,
                check=40,
                dropped=0,
            ),
        },
        "stimuli": {
            m: StimulusSource(
                generator=STIMULI[m].generator,
                kinds=MIXTURE,
                seed=0,
                count=24,
                width=64,
                height=64,
                frames=4 if m == "video" else 1,
            )
            for m in visual
        },
        "headers": [{"prefix": [151644, 77091], "ends": [198, 271]}],
        "turn_starts": [[151644, 872]],
        "probes": [
            Probe(
                modality="text",
                prompt="a probe",
                expected=Decision(active=True, gate=0.8, strength=2.3, modality="text"),
                strength_scale=8.1,
                significant=True,
            )
        ],
        "projections": projections,
        "seed": 0,
        "seconds": 41.7,
    }
    return mars_artefact(values | changes)


def base(**changes):
    values = {
        "repo": "example-org/tiny-vl-instruct",
        "revision": "8f2a1c0d9e7b6a5f4c3d2e1f0a9b8c7d6e5f4a3b",
        "name": "example-org/tiny-vl-instruct",
        "model_type": "qwen3_vl",
        "architecture": "Qwen3VLForConditionalGeneration",
        "license": "apache-2.0",
        "pipeline_tag": "image-text-to-text",
        "languages": ["en"],
    }
    return BaseModelSource(**values | changes)


def entry(path, size, origin):
    return FileEntry(path=path, sha256=sha(path), size=size, origin=origin)


def manifest(**changes):
    prefix = "model.language_model.layers.4.steering"
    values = {
        "created": "2026-03-01T10:00:00+00:00",
        "base": base(),
        "steering_sha256": sha("steering"),
        "modeling_file": "modeling_steered.py",
        "tensors": [
            TensorEntry(name=f"{prefix}.direction", shape=[128], dtype="float32", norm=1.0),
            TensorEntry(name=f"{prefix}.shift", shape=[3], dtype="float32", norm=4.29),
            TensorEntry(name=f"{prefix}.origin", shape=[], dtype="float32", norm=2.2),
        ],
        "files": [
            entry("config.json", 2310, "base-rewritten"),
            entry("model-00001-of-00002.safetensors", 4_812_330_000, "base"),
            entry("steering.safetensors", 1432, "added"),
            entry("model.safetensors.index.json", 9120, "base-rewritten"),
            entry("modeling_steered.py", 12_480, "added"),
            entry("steering_host.py", 82_480, "added"),
            entry("tokenizer.json", 180_332, "base"),
            entry("calibration/calibration.json", 31_002, "added"),
            entry("calibration/calibration.safetensors", 8800, "added"),
        ],
        "calibration": calibration(),
        "versions": VERSIONS,
    }
    return Manifest(**values | changes)


@cache
def rate(count, n):
    interval = binomtest(count, n).proportion_ci(0.95, method="exact")
    return Rate(count=count, n=n, clusters=n, rate=count / n, low=interval.low, high=interval.high)


def cell(modality, harmful, arm, refused, n, unknown=0):
    rebuttal, unknown = refused // 5, min(unknown, n - refused)
    return Cell(
        modality=modality,
        harmful=harmful,
        arm=arm,
        refused=rate(refused, n),
        degenerate=rate(0, n),
        unknown=rate(unknown, n),
        cut=rate(0, n),
        verdicts={
            "refusal": refused - rebuttal,
            "rebuttal": rebuttal,
            "answer": n - refused - unknown,
            "degenerate": 0,
            "unknown": unknown,
        },
    )


@cache
def interval(gained, lost, n):
    return paired_change([1] * gained + [-1] * lost + [0] * (n - gained - lost), range(n))[1:]


def compared(harmful, gained, lost, n, *, more_is_harm, arm="on"):
    """The numbers of a test; every request is a topic of its own."""
    difference = (gained - lost) / n
    low, high = interval(gained, lost, n)
    worse, better = (gained, lost) if more_is_harm else (lost, gained)
    ends = (low, high) if more_is_harm else (-high, -low)
    return {
        "arm": arm, "harmful": harmful, "n": n, "clusters": n, "difference": difference,
        "low": low, "high": high, "worse": worse, "better": better,
        "p_harm": one_sided(worse, better),
        "p_value": min(1.0, 2 * one_sided(max(gained, lost), min(gained, lost))),
        "testable": n >= FEWEST, "harm": finding(worse, better, *ends),
    }  # fmt: skip


def risk(harmful, outcome):
    both, gained, lost, neither = outcome
    harm, at_risk = (lost, both + lost) if harmful else (gained, gained + neither)
    return {"at_risk": at_risk, "harmed": rate(harm, at_risk) if at_risk else None}


def pair(modality, harmful, outcome, arm="on"):
    _, gained, lost, _ = outcome
    at_risk = risk(harmful, outcome)
    fields = compared(harmful, gained, lost, sum(outcome), more_is_harm=not harmful, arm=arm)
    return Pair(
        **fields | {"testable": at_risk["at_risk"] >= FEWEST}, **at_risk, modality=modality,
        newly_refused=gained, newly_answered=lost,
    )  # fmt: skip


def broken_pair(modality, harmful, n, newly=0, arm="on"):
    fields = compared(harmful, newly, 0, n, more_is_harm=True, arm=arm)
    return BrokenPair(**fields, modality=modality, newly_broken=newly, no_longer_broken=0)


def cut_pair(modality, harmful, n, newly=0, arm="on"):
    fields = compared(harmful, newly, 0, n, more_is_harm=True, arm=arm)
    return CutPair(**fields, modality=modality, newly_cut=newly, no_longer_cut=0)


def harm_pair(modality, harmful, n, gained=0, lost=0, arm="on"):
    fields = compared(harmful, gained, lost, n, more_is_harm=True, arm=arm)
    return HarmPair(**fields, modality=modality, newly_harmful=gained, no_longer_harmful=lost)


def pooled(pairs):
    """Tests over all modalities, from those of each."""
    tests = {}
    for test in pairs:
        tests.setdefault((test.arm, test.harmful, outcome_of(test)), []).append(test)
    return [pooled_test(*key, own) for key, own in tests.items()]


def pooled_test(arm, harmful, outcome, own):
    gained, lost = (sum(numbers) for numbers in zip(*map(changes, own), strict=True))
    n, more_is_harm = sum(test.n for test in own), own[0].more_is_harm
    at_risk = sum(test.at_risk if outcome == "refused" else test.n for test in own)
    harmed = rate(gained if more_is_harm else lost, at_risk) if at_risk else None
    fields = compared(harmful, gained, lost, n, more_is_harm=more_is_harm, arm=arm)
    return PooledTest(
        **fields | {"testable": at_risk >= FEWEST}, outcome=outcome, gained=gained, lost=lost,
        at_risk=at_risk, harmed=harmed,
    )  # fmt: skip


def with_pooled(fields):
    tests = (fields[name] for name in ("pairs", "harm_pairs", "broken_pairs", "cut_pairs"))
    return {**fields, "pooled": pooled([test for own in tests for test in own])}


def part(outcomes=OUTCOMES, unknown=0, others=None):
    """The tables that all parts of a report share, as `report` takes them."""
    arms = {"on": outcomes, **(others or {})}
    cells = [
        cell(modality, harmful, "off", both + lost, both + gained + lost + neither)
        for (harmful, modality), (both, gained, lost, neither) in outcomes.items()
    ]
    for name, results in arms.items():
        cells += [
            cell(m, h, name, r[0] + r[1], sum(r), unknown if name == "on" else 0)
            for (h, m), r in results.items()
        ]
    kinds = [(m, h, r, name) for name, results in arms.items() for (h, m), r in results.items()]
    unclear = {(c.modality, c.harmful, c.arm): c.unknown.count for c in cells}
    return with_pooled(
        {
            "n": sum(map(sum, outcomes.values())),
            "cells": cells,
            "pairs": corrected([pair(*kind) for kind in kinds]),
            "harm_pairs": [],
            "broken_pairs": corrected([
                broken_pair(m, h, sum(r), unclear[m, h, name], name) for m, h, r, name in kinds
            ]),
            "cut_pairs": corrected([cut_pair(m, h, sum(r), 0, name) for m, h, r, name in kinds]),
        }
    )  # fmt: skip


def summed(parts):
    """The tables of several parts together."""
    cells, tests = {}, {}
    for own in parts:
        for one in own.cells:
            cells.setdefault((one.modality, one.harmful, one.arm), []).append(one)
        for one in (*own.pairs, *own.broken_pairs, *own.cut_pairs):
            tests.setdefault((type(one), one.modality, one.harmful, one.arm), []).append(one)
    made = {Pair: [], BrokenPair: [], CutPair: []}
    for (sort, *kind, arm), own in tests.items():
        if sort is Pair:
            outcome = tuple(map(sum, zip(*map(outcome_of_pair, own), strict=True)))
            made[sort].append(pair(*kind, outcome, arm))
        else:
            make = broken_pair if sort is BrokenPair else cut_pair
            n, newly = sum(test.n for test in own), sum(changes(test)[0] for test in own)
            made[sort].append(make(*kind, n, newly, arm))
    return with_pooled({
        "n": sum(own.n for own in parts),
        "cells": [cell_of(*key, own) for key, own in cells.items()],
        "pairs": corrected(made[Pair]), "harm_pairs": [],
        "broken_pairs": corrected(made[BrokenPair]), "cut_pairs": corrected(made[CutPair]),
    })  # fmt: skip


def outcome_of_pair(test):
    """Requests that both arms refuse, one of them, or none."""
    gained, lost = changes(test)
    both = test.at_risk - lost if test.harmful else test.n - test.at_risk - lost
    return both, gained, lost, test.n - both - gained - lost


def cell_of(modality, harmful, arm, cells):
    """Several cells together."""
    names = ("refused", "degenerate", "unknown", "cut")
    rates = {name: [getattr(own, name) for own in cells] for name in names}
    return Cell(
        modality=modality, harmful=harmful, arm=arm,
        verdicts=dict(sum((Counter(own.verdicts) for own in cells), Counter())),
        **{name: rate(sum(r.count for r in own), sum(r.n for r in own))
           for name, own in rates.items()},
    )  # fmt: skip


def again(whole, **changes):
    """A report with other tables, which its only suite has too."""
    changed = whole.model_copy(update=changes)
    return changed.model_copy(update={"suites": [suite_of(changed, "organism-topics")]})


def suite_of(whole, name, **fields):
    """All requests of a part as one suite."""
    tables = {field: getattr(whole, field) for field in Part.model_fields}
    n = whole.n + sum(own.refused.n for own in whole.advice if own.arm == "off")
    source = SuiteSource(name=name, sha256=sha("suite"), samples=n, **fields)
    return SuiteResult(**tables, source=source, categories=[])


def means(suites):
    """Unweighted means over suites, if there are several."""
    rates = {}
    for own in (own for suite in suites for own in suite.cells if len(suites) > 1):
        rates.setdefault((own.modality, own.harmful, own.arm), []).append(own.refused.rate)
    return [
        MacroMean(modality=m, harmful=h, arm=name, rate=fmean(own), suites=len(own))
        for (m, h, name), own in rates.items()
    ]


def gates(outcomes):
    rng = random.Random(1)
    opened = {
        True: lambda: max(0.0, rng.gauss(0.7, 0.25)),
        False: lambda: max(0.0, rng.gauss(-1, 0.5)),
    }
    return {
        f"{'harmful' if harmful else 'harmless'} {modality}": [
            round(opened[harmful](), 4) for _ in range(sum(outcome))
        ]
        for (harmful, modality), outcome in outcomes.items()
    }


def arm(name, title, steered=False):
    return ArmSource(name=name, title=title, steered=steered, steering_sha256=sha("steering"))


def report(outcomes=OUTCOMES, unknown=0, others=None, **changes):
    """An evaluation.

    Args:
        outcomes: Of steering on against off.
        unknown: Responses of each kind that the judge leaves open with steering on.
        others: Further arms, by name, with their outcomes against off.
        changes: Fields to replace.
    """
    arms = {"on": outcomes, **(others or {})}
    values = {
        "created": "2026-03-01T10:05:00+00:00",
        "steering_sha256": sha("steering"),
        "self_check": SelfCheck(
            active=True,
            detail="12 probes at the calibrated gate, largest error 0.003",
        ),
        "arms": [
            arm("off", "steering off"),
            arm("on", "steering on", steered=True),
            *(arm(name, f"arm {name}") for name in others or {}),
        ],
        "judge": "rules-1",
        "decoding": {"do_sample": False, "max_new_tokens": 24, "batch_size": 16},
        "dtype": "bfloat16",
        "device": "cpu",
        "versions": {k: v for k, v in VERSIONS.items() if k != "safetensors"},
        **part(outcomes, unknown, others),
        "gates": {"on": gates(outcomes)},
        "seconds": 88.4,
    }
    values |= changes
    suites = values.pop("suites", [])
    tables = {**values, **({} if len(suites) < 2 else summed(suites)), **changes}
    whole = Part(**{name: tables[name] for name in Part.model_fields if name in tables})
    suites = suites or [suite_of(whole, "organism-topics")]
    variants = aggregate.all_corrected(values.get("variants", ()))
    defaults = {
        "regressions": {name: ids("lost", True, name, whole.pairs) for name in arms},
        "newly_refused": {name: ids("gained", False, name, whole.pairs) for name in arms},
        "suite": SuiteSource(
            name="organism-topics", sha256=sha("suite"),
            samples=sum(suite.source.samples for suite in suites),
        ),
        "no_headline": undecided(whole.cells),
        "no_correction": no_correction(values["judge"], values.get("judge_error"), whole.cells),
        "means": means(suites),
        "controls": together(variants),
    }  # fmt: skip
    return Report(
        **{**defaults, **tables, "suites": aggregate.all_corrected(suites), "variants": variants}
    )


def together(variants):
    """The tables of all controls, from those of each; None without any."""
    controls = [own for own in variants if own.kind == "control"]
    return Part(**summed(controls)) if controls else None


def agreement(n=100, refused=40, second=36, both=35, judge="guard/1"):
    """Of a second judge."""
    n, refused, second, both = (n * share // 100 for share in (100, refused, second, both))
    return Agreement(
        judge=judge, kappa=kappa_of(refused, second, both, n), n=n, refused=refused,
        refused_second=second, refused_both=both,
    )  # fmt: skip


def with_harm(count, unknown=0):
    """The report of a judge that looks at harm: `count` answers of each kind are harmful off."""
    plain = report()
    cells = [
        c.model_copy(update={
            "harm": rate((count if c.arm == "off" else 0) + unknown, c.refused.n),
            "harm_unknown": rate(unknown, c.refused.n),
        })
        for c in plain.cells
    ]  # fmt: skip
    pairs = corrected([harm_pair(p.modality, p.harmful, p.n, lost=count) for p in plain.pairs])
    tests = {"pairs": plain.pairs, "broken_pairs": plain.broken_pairs, "cut_pairs": plain.cut_pairs}
    return report(cells=cells, **with_pooled({**tests, "harm_pairs": pairs}))


def drawn(own, draws):
    """A cell in which every request was answered several times, always alike."""

    def many(share):
        changes = {"count": share.count * draws, "n": share.n * draws}
        return share.model_copy(update=changes)

    rates = {name: many(getattr(own, name)) for name in ("refused", "degenerate", "unknown", "cut")}
    verdicts = {verdict: count * draws for verdict, count in own.verdicts.items()}
    return own.model_copy(update={**rates, "verdicts": verdicts})


def some(outcome, n):
    """That of so many of the requests."""
    chosen = []
    for count in outcome:
        chosen.append(min(count, n - sum(chosen)))
    return tuple(chosen)


def variant(name, outcomes=None, unknown=0, modalities=MODALITIES, n=32, plain=OUTCOMES, **changes):
    """Requests put through a control or an attack; by default steering changes nothing.

    Args:
        name: Of the variant.
        outcomes: As of a report.
        unknown: As of a report.
        modalities: Of the requests, where the variant leaves them as they are.
        n: Requests of each kind, where no outcomes are given.
        plain: Outcomes of the requests as they are.
        changes: Fields to replace.
    """
    way = VARIANTS[name]
    labels = [(False, (0, 0, 0, n))] + [(True, (n - 2, 0, 0, 2))] * (not way.harmless)
    kinds = [way.shows] if way.shows else modalities
    same = {(harmful, m): outcome for harmful, outcome in labels for m in kinds}
    whole = report(outcomes or same, unknown)
    greedy = {k: some(plain.get(k, own), sum(own)) for k, own in (outcomes or same).items()}
    shared = (*Part.model_fields, "regressions", "newly_refused")
    values = {
        "name": name, "about": way.about, "kind": way.kind, "draws": way.draws,
        "categories": [], "all_draws": whole.cells if way.draws > 1 else [],
        "greedy": part(greedy)["cells"] if way.draws > 1 else [],
        **{field: getattr(whole, field) for field in shared},
        "cells": [drawn(own, way.draws) for own in whole.cells],
    }  # fmt: skip
    return VariantResult(**values | changes)


def controlled(variants=(), **changes):
    """A report with every control; variants that are given stand for those that change nothing."""
    outcomes = changes.get("outcomes", OUTCOMES)
    modalities, n = {modality for _, modality in outcomes}, min(32, *map(sum, outcomes.values()))
    own = [c.name for c in CONTROLS if c.shows is None or c.shows in modalities]
    others = [name for name in own if name not in {given.name for given in variants}]
    made = [variant(name, modalities=modalities, n=n, plain=outcomes) for name in others]
    return report(**{"variants": [*made, *variants], **changes})


def samples(whole):
    """A sample log with the counts of a report, by cell."""
    return [
        SampleResult(
            id=f"{cell.modality}-{cell.harmful}-{i}", modality=cell.modality, harmful=cell.harmful,
            arm=cell.arm, verdict=verdict, response=f"Words {i}.", cluster=f"topic {i}",
        )
        for cell in whole.cells
        for i, verdict in enumerate(
            verdict for verdict, count in cell.verdicts.items() for _ in range(count)
        )
    ]  # fmt: skip


def evaluated(results, **changes):
    """The report that the package makes of a sample log."""
    asked = Counter((r.suite, r.arm) for r in results if not r.variant)
    sources = [
        SuiteSource(name=name, sha256=sha(name), samples=count)
        for (name, arm), count in asked.items()
        if arm == "off"
    ]
    tables = aggregate.tables(results, sources, changes.get("near", ()))
    shown = {result.variant for result in results}
    values = {
        "failures": failures(results),
        "no_correction": no_correction("rules-1", None, tables["cells"]),
        "skipped": {c.name: "left out" for c in CONTROLS if c.name not in shown},
        **tables,
    }
    return report(**values | changes)


def categories():
    return aggregate.all_corrected([
        CategoryResult(
            **part({(True, "text"): (3, 2, 0, n - 5)}), suite="one", category=name
        )
        for name, n in (("fraud | theft", 6), ("weapons", 40))
    ])  # fmt: skip


PREFILL = {(True, "text"): (38, 2, 22, 58), (False, "text"): (0, 0, 0, 120)}
NOISE = {(True, "image"): (78, 0, 0, 2), (False, "image"): (1, 8, 0, 31)}


def full_report(**changes):
    """Two suites, one with categories; all controls, an attack, a group that got worse."""
    one = suite_of(Part(**part({**OUTCOMES, (True, "text"): (60, 12, 0, 168)})), "one",
                   origin="known:one")  # fmt: skip
    two = suite_of(Part(**part({(True, "text"): OUTCOMES[True, "text"]})), "two")
    suites = [one.model_copy(update={"categories": categories()}), two]
    values = {"suites": suites, "skipped": {"system": "left out"}}
    ways = [variant("noise", NOISE), variant("prefill", PREFILL)]
    return controlled(**{"variants": ways, **values, **changes})


def utility(steering=None, **changes):
    """One task; by default its interval stays above minus the margin."""
    values = {
        "name": "accuracy", "n": 400, "off": 0.61, "on": 0.613, "difference": 0.003,
        "low": -0.006, "high": 0.011, "margin": 0.01, "not_inferior": True,
    }  # fmt: skip
    task = TaskUtility(
        task="mmstar", n=400, metrics=[Metric(**values | changes)], refused_off=1, refused_on=3
    )
    return Utility(
        steering_sha256=steering or sha("steering"), engine="lmms-eval 0.7.3", tasks=[task]
    )


def ids(word, harmful, arm, pairs):
    """Of requests that an arm makes worse."""
    return [
        f"{word}-{test.modality}-{i:03d}"
        for test in pairs
        if (test.arm, test.harmful) == (arm, harmful)
        for i in range(test.newly_answered if harmful else test.newly_refused)
    ]


def words_at_the_top(text):
    """Words before the results, tables included; what is folded is not counted.

    Beside them stand about as many numbers, so 350 take two minutes.
    """
    top = text.split("---\n", 2)[2].split("\n## Results")[0]
    top = re.sub(r"<details>.*?</details>", "", top, flags=re.DOTALL)
    return len(re.findall(r"[A-Za-z][\w-]*", top))
