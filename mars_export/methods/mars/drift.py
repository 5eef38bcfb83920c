"""Whether the steering of a trained checkpoint still fits its weights.

An error of the gate's origin or of a shift has a side. Downward it is judged by the margin: how far
harmful text beside neutral stimuli lies above the origin; an error of the median margin shuts the
gate for half of it. Upward it is judged by the reserve: beyond, the gate opens for harmless
requests.
A3.n are sections of docs/method.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from mars_export.methods.base import Artefact, Difference
from mars_export.methods.comparison import compare_directions
from mars_export.methods.mars.record import mars_record

if TYPE_CHECKING:
    import torch

__all__ = ["compare", "shift_errors"]

_STRONGEST: Final = 2.0
"""Most that a fresh push may be longer than the stored one: half of the push is then missing."""


def compare(
    rules: Mapping[str, Any], tensors: Mapping[str, torch.Tensor], artefact: Artefact
) -> list[Difference]:
    """Compare the tensors of `Rule` with those of a fresh calibration at the same layer.

    Args:
        rules: `config.steering` of the checkpoint.
        tensors: Those of `Rule`, with a row for each of `rules["modalities"]`.
        artefact: Calibration of the weights as they are.
    """
    record, fresh = mars_record(artefact.record), artefact.tensors
    margins = {margin.modality: margin.median for margin in record.margins}
    size = record.separation
    rows = [
        (modality, row, list(artefact.record.source.modalities).index(modality))
        for row, modality in enumerate(rules["modalities"])
        if modality in artefact.record.source.modalities
    ]
    origin, harmful, _, slope, longest = tensors["bounds"][0].double().tolist()
    now_harmful, now_longest = fresh["bounds"][0, [1, 4]].double().tolist()
    differences = [compare_directions(tensors["direction"], fresh["direction"]), _layer(artefact)]
    # z at which the push reaches its full length.
    differences.append(_harmful((now_harmful - origin) / (harmful - origin), longest / slope))
    for modality, row, now in rows:
        opens = float(fresh["bounds"][now, 0] - tensors["bounds"][row, 0]) / size
        margin = max(margins.get(modality, 0.0), 0.0)
        name, what = f"gate origin of {modality}", f"harmless {modality} requests end"
        sentence = f"{what} {{value:+.2f}} R from where they did"
        differences.append(_within(name, [opens], (record.reserve, margin), sentence))
        if modality != "text" or tensors["turn"].shape[1] > 1:
            moved = [error / size for error in shift_errors(tensors, row, fresh, now)]
            sentence = f"the {modality} shift is off by up to {{value:+.2f}} R"
            differences.append(
                _within(f"shift of {modality}", moved, (record.reserve, margin), sentence)
            )
    differences.append(_strength(now_longest / longest))
    return differences


def shift_errors(
    stored: Mapping[str, torch.Tensor], row: int, fresh: Mapping[str, torch.Tensor], now: int
) -> list[float]:
    """The differences of the shifts over all media tokens and turns, with their signs."""
    import torch

    from mars_export.methods.mars.rule import between

    x = torch.cat([stored["knots"][row], fresh["knots"][now]])
    old, new = (
        between(x, tensors["knots"][i], tensors["shift"][i]).tolist()
        for tensors, i in ((stored, row), (fresh, now))
    )
    turns = max(stored["turn"].shape[1], fresh["turn"].shape[1])
    return [
        float(b - a + _turn(fresh, now, t) - _turn(stored, row, t))
        for a, b in zip(old, new, strict=True)
        for t in range(turns)
    ]


def _turn(tensors: Mapping[str, torch.Tensor], row: int, turn: int) -> float:
    return float(tensors["turn"][row, min(turn, tensors["turn"].shape[1] - 1)])


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


def _within(
    name: str, values: Sequence[float], sides: tuple[float, float], sentence: str
) -> Difference:
    """The value that is worst for its side; sides: the limits above and below 0."""
    above, below = sides
    limits = [(x, above if x > 0 else below) for x in values]
    value, limit = max(limits, key=lambda pair: abs(pair[0]) - pair[1])
    return Difference(
        name=name,
        value=value,
        limit=limit,
        fits=abs(value) <= limit,
        sentence=sentence.format(value=value),
    )
