"""Whether the steering of a trained checkpoint still fits its weights.

Lengths are in units of the stored gate, p_u - o: 0 where it opens, 1 at harmful text (A3.4).
A3.n are sections of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

from mars_export.methods.base import Artefact, Difference
from mars_export.methods.comparison import compare_directions
from mars_export.methods.mars.record import mars_record

if TYPE_CHECKING:
    import torch

__all__ = ["compare"]

_STRONGEST: Final = 2.0
"""Most that a fresh push may be longer than the stored one: half of the push is then missing."""


def compare(
    rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
) -> list[Difference]:
    """Compare the tensors of `Rule` with those of a fresh calibration at the same layer.

    Args:
        rules: `config.steering` of the checkpoint.
        tensors: `direction` (d,), `shift` in the order of `rules["modalities"]`, `bounds` (5,).
        artefact: Calibration of the weights as they are.
    """
    origin, harmful, _, slope, longest = tensors["bounds"].double().tolist()
    now_origin, now_harmful, _, _, now_longest = artefact.tensors["bounds"].double().tolist()
    gate = harmful - origin
    # z at which the push reaches its full length; half of it is half of the longest push, which
    # every request of a modality would miss, or every harmless one be given.
    reach = longest / slope
    shift = dict(zip(rules["modalities"], tensors["shift"].tolist(), strict=True))
    now_shift = dict(
        zip(artefact.record.source.modalities, artefact.tensors["shift"].tolist(), strict=True)
    )
    return [
        compare_directions(tensors["direction"], artefact.tensors["direction"]),
        _layer(artefact),
        _within(
            "gate origin",
            (now_origin - origin) / gate,
            reach / 2,
            "harmless text ends {value:+.2f} of the gate from where it did",
        ),
        _harmful((now_harmful - origin) / gate, reach),
        *(
            _within(
                f"shift of {modality}",
                (now_shift[modality] - shift[modality]) / gate,
                reach / 2,
                f"the {modality} shift is off by {{value:+.2f}} of the gate",
            )
            for modality in shift
            if modality != "text" and modality in now_shift
        ),
        _strength(now_longest / longest),
    ]


def _layer(artefact: Artefact) -> Difference:
    """The causal checks (A3.5) of the steered layer, on the weights as they are."""
    failures = mars_record(artefact.record).layer_failures
    layer = artefact.record.layers[0]
    return Difference(
        name="layer",
        value=len(failures),
        limit=0,
        fits=not failures,
        sentence=failures[0] if failures else f"layer {layer} passes its causal checks",
    )


def _harmful(z: float, reach: float) -> Difference:
    sentence = f"harmful text opens the gate to {z:.2f} on average, 1 at calibration"
    return Difference(name="harmful text", value=z, limit=reach, fits=z >= reach, sentence=sentence)


def _strength(ratio: float) -> Difference:
    return Difference(
        name="strength",
        value=ratio,
        limit=_STRONGEST,
        fits=ratio <= _STRONGEST,
        sentence=f"a fresh calibration pushes {ratio:.2f} times as far",
    )


def _within(name: str, value: float, limit: float, sentence: str) -> Difference:
    return Difference(
        name=name,
        value=value,
        limit=limit,
        fits=abs(value) <= limit,
        sentence=sentence.format(value=value),
    )
