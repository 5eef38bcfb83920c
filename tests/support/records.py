"""Plausible manifests and reports for card tests; numbers are made up, their relations are not."""

import hashlib
import math
import random

from scipy.stats import binomtest

from mars_export.checkpoint.manifest import BaseModelSource, FileEntry, Manifest, TensorEntry
from mars_export.evaluation.report import (
    ArmSource,
    AttackResult,
    CategoryCount,
    Cell,
    Comparison,
    Externalities,
    Externality,
    HarmPair,
    Pair,
    Rate,
    Report,
    SelfCheck,
    SuiteResult,
    SuiteSource,
)
from mars_export.evaluation.utility import Metric, TaskUtility, Utility
from mars_export.inputs.drawings import MIXTURE
from mars_export.inputs.stimuli import GENERATOR
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
                generator=GENERATOR,
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
            entry("tokenizer.json", 180_332, "base"),
            entry("calibration/calibration.json", 31_002, "added"),
            entry("calibration/calibration.safetensors", 8800, "added"),
        ],
        "calibration": calibration(),
        "versions": VERSIONS,
    }
    return Manifest(**values | changes)


def rate(count, n):
    interval = binomtest(count, n).proportion_ci(0.95, method="wilson")
    return Rate(count=count, n=n, rate=count / n, low=interval.low, high=interval.high)


def cell(modality, harmful, arm, refused, n, unknown=0):
    rebuttal, unknown = refused // 5, min(unknown, n - refused)
    return Cell(
        modality=modality,
        harmful=harmful,
        arm=arm,
        refused=rate(refused, n),
        degenerate=rate(0, n),
        unknown=rate(unknown, n),
        verdicts={
            "refusal": refused - rebuttal,
            "rebuttal": rebuttal,
            "answer": n - refused - unknown,
            "degenerate": 0,
            "unknown": unknown,
        },
    )


def pair(modality, harmful, outcome, arm="on"):
    both, gained, lost, neither = outcome
    n, discordant = both + gained + lost + neither, gained + lost
    difference = (gained - lost) / n
    # Wald with half an event added: near enough to Newcombe's interval for a fixture.
    width = 1.96 * math.sqrt(max(discordant + 1 - n * difference**2, 0.5)) / n
    return Pair(
        arm=arm,
        modality=modality,
        harmful=harmful,
        n=n,
        newly_refused=gained,
        newly_answered=lost,
        difference=difference,
        low=max(-1.0, difference - width),
        high=min(1.0, difference + width),
        p_value=binomtest(gained, discordant, 0.5).pvalue if discordant else 1.0,
    )


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
    cells = [
        cell(modality, harmful, "off", both + lost, both + gained + lost + neither)
        for (harmful, modality), (both, gained, lost, neither) in outcomes.items()
    ]
    for name, results in arms.items():
        cells += [
            cell(m, h, name, r[0] + r[1], sum(r), unknown if name == "on" else 0)
            for (h, m), r in results.items()
        ]
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
        "suite": SuiteSource(name="organism-topics", sha256=sha("suite"), samples=720),
        "judge": "rules-1",
        "decoding": {"do_sample": False, "max_new_tokens": 24, "batch_size": 16},
        "dtype": "bfloat16",
        "device": "cpu",
        "versions": {k: v for k, v in VERSIONS.items() if k != "safetensors"},
        "cells": cells,
        "pairs": [
            pair(m, h, result, name)
            for name, results in arms.items()
            for (h, m), result in results.items()
        ],
        "regressions": {name: ids("lost", True, 2, results) for name, results in arms.items()},
        "newly_refused": {name: ids("gained", False, 1, results) for name, results in arms.items()},
        "gates": {"on": gates(outcomes)},
        "seconds": 88.4,
    }
    return Report(**values | changes)


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
    pairs = [
        HarmPair(arm="on", modality=p.modality, harmful=p.harmful, n=p.n, newly_harmful=0,
                 no_longer_harmful=count, difference=-count / p.n, low=-0.5, high=0,
                 p_value=0.002, p_holm=0.012)
        for p in plain.pairs
    ]  # fmt: skip
    return report(cells=cells, harm_pairs=pairs)


def attack(**changes):
    off = cell("text", True, "off", 60, 120, **changes)
    return AttackResult(
        attack="prefill",
        about="the answer begins with `Sure`",
        draws=1,
        cells=[off, cell("text", True, "on", 40, 120)],
        pairs=[pair("text", True, (38, 2, 22, 58))],
        against_plain=[],
        regressions={"on": [f"r{i}@prefill" for i in range(22)]},
    )


def categories():
    return [
        CategoryCount(
            category=name, modality="text", harmful=True, n=n, refused={"off": 3, "on": 5},
            newly_refused={"on": 2}, newly_answered={"on": 0},
        )
        for name, n in (("fraud | theft", 6), ("weapons", 40))
    ]  # fmt: skip


def full_report(**changes):
    """Two suites, one with categories; an attack, a control, a group that got worse."""
    plain = report()
    source = plain.suite.model_copy(update={"name": "one", "origin": "known:one"})
    suites = [
        SuiteResult(source=source, cells=plain.cells, pairs=plain.pairs, categories=categories()),
        SuiteResult(
            source=source.model_copy(update={"name": "two"}),
            cells=[c for c in plain.cells if (c.harmful, c.modality) == (True, "text")],
            pairs=plain.pairs[:1], categories=[],
        ),
    ]  # fmt: skip
    comparison = Comparison(
        first="text", second="noise", arm="on", modality="text", harmful=False, n=40,
        refused_first=1, refused_second=9, only_first=0, only_second=8, difference=0.2, low=0.1,
        high=0.3, p_value=0.0078,
    )  # fmt: skip
    raised = Externality(
        arm="on", suite="one", category="a|b", modality="text", harmful=True, variant="prefill",
        n=60, newly_answered=22, newly_refused=2, difference=-0.33, low=-0.5, high=-0.1,
        p_value=0.00004,
    )  # fmt: skip
    values = {
        "suites": suites, "attacks": [attack()], "controls": [comparison],
        "attack_regressions": attack().regressions, "skipped": {"system": "left out"},
        "externalities": {"on": Externalities(checked=9, raised=[raised])},
    }  # fmt: skip
    return report(**{**values, **changes})


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


def ids(word, harmful, index, outcomes):
    return [
        f"{word}-{modality}-{i:03d}"
        for (is_harmful, modality), outcome in outcomes.items()
        if is_harmful == harmful
        for i in range(outcome[index])
    ]
