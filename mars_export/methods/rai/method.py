"""The calibration of RAI: prototypes from token embeddings, thresholds from neutral stimuli.

Ours is the threshold, which no source gives, with the words and the stimuli: see docs/method.md.
"""

import time
from collections.abc import Sequence
from statistics import median
from typing import Any, Final

import torch

from mars_export.calibration.data import CalibrationData
from mars_export.calibration.measurements import stimulus, stimulus_source
from mars_export.calibration.meter import Meter
from mars_export.calibration.source import CalibrationSource, PromptSource
from mars_export.calibration.visual_tokens import visual_tokens
from mars_export.common.errors import UnsteerableError
from mars_export.common.vocabulary import Modality
from mars_export.families import decoder_layers
from mars_export.families.placement import input_device
from mars_export.inputs.merges import tokenizer_of
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.template import thinking_options
from mars_export.methods.base import Artefact, Decision, Probe
from mars_export.methods.rai.record import (
    SHARES,
    WORDS,
    Prototype,
    RaiOptions,
    RaiRecord,
    Visual,
)
from mars_export.methods.rai.rule import NEVER, VisualRule
from mars_export.methods.rai.scores import Shown, curve, kinds, score, threshold_of
from mars_export.runtime.model_inputs import visual_columns

__all__ = ["calibrate"]

_PUSHED: Final = 2
"""Most probes of each modality that are pushed; one more is not."""
_SMALL: Final = 0.1
"""Length of a push over that of a visual token below which it is told."""


def calibrate(data: CalibrationData, options: RaiOptions) -> Artefact:
    """Measure which visual tokens lie near the words (RAI, arXiv 2602.03402).

    Only neutral stimuli are shown to the model, whose layers are not run; nothing is trained.

    Raises:
        ExportError: The model has no visual features in the place of tokens, or no visual token
            would ever be pushed.
    """
    began, meter = time.monotonic(), Meter(data.progress)
    meter.plan(2 * data.measurement.pairs * len(data.beside))
    words, prototypes = _prototypes(data)
    modalities = ("text", *data.beside)
    rules: dict[str, Any] = {"layers": [], "positions": "none", "words": len(words)}
    rule = VisualRule(prototypes.shape[-1], {**rules, "modalities": modalities})
    tensors = {
        "prototypes": prototypes,
        "thresholds": torch.full((len(modalities),), NEVER),
        "gain": torch.tensor(options.rai_gain),
    }
    rule.load_state_dict(tensors)
    chosen = {m: score(data, rule, m, "decision", options.rai_share, meter) for m in data.beside}
    for index, modality in enumerate(data.beside, start=1):
        tensors["thresholds"][index] = _threshold(chosen[modality], modality, options.rai_share)
    rule.load_state_dict(tensors)
    visual = {
        m: _visual(data, rule, m, some, options.rai_share, meter) for m, some in chosen.items()
    }
    meter.settle()
    record = RaiRecord(
        prototypes=words, share=options.rai_share, gain=options.rai_gain, visual=visual
    )
    record = record.model_copy(update={"findings": _findings(record)})
    return Artefact.of(
        "rai",
        _source(data, chosen, prototypes.shape[-1], began),
        record,
        rules=rules,
        tensors={**tensors, **{f"cosines_{m}": _cosines(some) for m, some in chosen.items()}},
        probes=[p for m, some in chosen.items() for p in _probes(data, rule, m, some)],
    )


def _cosines(shown: Sequence[Shown]) -> torch.Tensor:
    """(N,) of every visual token with the word nearest to it, for `compare` and for people."""
    return torch.cat([one.cosines.amax(-1) for one in shown])


def _prototypes(data: CalibrationData) -> tuple[list[Prototype], torch.Tensor]:
    """The words, and their (K, d) unit vectors: means of the embeddings of their tokens."""
    tokenizer, embedding = tokenizer_of(data.processor), data.model.get_input_embeddings()
    words, rows = [], []
    for category, both in WORDS.items():
        for word in both:
            tokens = tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
            ids = torch.tensor(tokens, device=input_device(data.model))
            with torch.inference_mode():
                mean = embedding(ids).float().mean(0).cpu()
            norm = float(mean.norm())
            if not 0 < norm < float("inf"):
                raise UnsteerableError(
                    f"The token embeddings of {word!r} have a mean of length {norm:.3g}, so it is "
                    "no direction; take another base."
                )
            words.append(Prototype(category=category, word=word, tokens=tokens, norm=norm))
            rows.append(mean / norm)
    return words, torch.stack(rows)


def _threshold(shown: Sequence[Shown], modality: Modality, share: float) -> float:
    tokens = sum(len(one.lengths) for one in shown)
    if not tokens:
        raise UnsteerableError(
            f"The model puts no features of a neutral {modality} in the place of tokens, and RAI "
            "pushes those; take another --method, for example mars."
        )
    threshold = threshold_of(shown, share)
    if threshold is None:
        raise UnsteerableError(
            f"A share of {share:g} of the {tokens} visual tokens of {len(shown)} neutral "
            f"{modality} stimuli is none that a threshold sets apart; give a larger --rai-share, "
            "or stimuli of more kinds (--neutral)."
        )
    return threshold


def _visual(
    data: CalibrationData, rule: VisualRule, modality: Modality, chosen: list[Shown],
    share: float, meter: Meter,
) -> Visual:  # fmt: skip
    """What the thresholds do to stimuli that did not choose them."""
    held_out = score(data, rule, modality, "check", share, meter, count=len(chosen))
    threshold = _own(rule, data, modality)
    every = (*chosen, *held_out)
    pushes = torch.cat([_pushes(rule, threshold, one) / one.lengths for one in every])
    pushed = pushes[pushes > 0].tolist()
    return Visual(
        threshold=threshold,
        tokens=sum(len(one.lengths) for one in chosen),
        curve=curve(chosen, held_out, {*SHARES, share}),
        kinds=kinds(held_out, threshold),
        length=float(torch.cat([one.lengths for one in held_out]).median()),
        push=median(pushed) if pushed else None,
    )


def _own(rule: VisualRule, data: CalibrationData, modality: Modality) -> float:
    return float(rule.thresholds[1 + data.beside.index(modality)])


def _pushes(rule: VisualRule, threshold: float, shown: Shown) -> torch.Tensor:
    """(n,) length of the push of every token."""
    near = shown.cosines * (shown.cosines > threshold)
    length: torch.Tensor = (rule.gain * near @ rule.prototypes).norm(dim=-1)
    return length


def _findings(record: RaiRecord) -> list[str]:
    small = {m: v.push for m, v in record.visual.items() if v.push is not None and v.push < _SMALL}
    return [
        f"RAI moves the {modality} tokens that it pushes by {push:.1%} of their length (median); "
        "so small a push may change nothing that is answered, which the evaluation shows."
        for modality, push in small.items()
    ]


def _probes(
    data: CalibrationData, rule: VisualRule, modality: Modality, chosen: list[Shown]
) -> list[Probe]:
    """The stimuli with the tokens nearest to a word, and the one farthest from all."""
    threshold = _own(rule, data, modality)
    ranked = sorted(chosen, key=lambda one: -float(one.cosines.max()))
    # Far enough above the threshold that rounding does not move them below.
    least = (threshold + float(ranked[0].cosines.max())) / 2
    pushed = [one for one in ranked[:_PUSHED] if float(one.cosines.max()) >= least]
    prompt, tokens = data.prompts.harmless.decision[0], visual_tokens(data.model.config)
    probes = []
    for one in [*pushed, ranked[-1]]:
        best = int(one.cosines.amax(-1).argmax())
        strength = float(_pushes(rule, threshold, one)[best])
        active = strength > 0
        request = Request(prompt, (stimulus(modality, one.number, data.measurement),))
        ids = collate(data.processor, [request])["input_ids"]
        columns = visual_columns({}, ids, ids, tokens)[0].nonzero()[:, 0]
        probes.append(
            Probe(
                modality=modality,
                prompt=prompt,
                stimuli=(one.number,),
                expected=Decision(
                    active=active,
                    gate=float(one.cosines[best].max()) if active else 0.0,
                    strength=strength,
                    position=int(columns[best]) if active else None,
                    modality=modality,
                ),
                strength_scale=max(strength, 1.0),
            )
        )
    return probes


def _source(
    data: CalibrationData, chosen: dict[Modality, list[Shown]], hidden_size: int, began: float
) -> CalibrationSource:
    """No prompt is measured, and no assistant header is needed."""
    measurement, sets = data.measurement, data.prompts
    return CalibrationSource(
        model_type=data.model.config.model_type,
        layers=len(decoder_layers(data.model)),
        hidden_size=hidden_size,
        dtype=str(data.model.dtype).removeprefix("torch."),
        quantization=data.quantization,
        template_options=thinking_options(data.processor, measurement.thinking),
        modalities=("text", *data.beside),
        headers=[],
        turn_starts=[],
        prompts={
            label: PromptSource(
                name=some.name, sha256=some.sha256, license=some.license,
                direction=0, decision=0, check=0, dropped=0,
            )
            for label, some in (("harmful", sets.harmful), ("harmless", sets.harmless))
        },
        stimuli={m: stimulus_source(m, measurement, 2 * len(some)) for m, some in chosen.items()},
        seed=measurement.seed,
        seconds=time.monotonic() - began,
    )  # fmt: skip
