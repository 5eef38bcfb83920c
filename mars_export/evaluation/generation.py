"""Loading a steered directory as a user does, and answers with steering off or on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import torch
import transformers
from safetensors import SafetensorError

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality, auto_class
from mars_export.families.directory import read_config
from mars_export.families.quantization import NONE, SCHEMES, loading_options, refuse_unfit_layers
from mars_export.inputs.requests import Request, collate
from mars_export.inputs.template import with_options
from mars_export.methods.base import ArtefactRecord, Decision

__all__ = [
    "GREEDY",
    "SAMPLED",
    "Answers",
    "Loaded",
    "SteeredPosition",
    "load",
    "load_calibrated",
]

GREEDY: Final[dict[str, int | float | bool]] = {
    "do_sample": False,
    "num_beams": 1,
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 50,
}
"""Greedy decoding, whatever the checkpoint's own defaults. The last three are Transformers'
defaults: greedy decoding ignores them, and warns of any other value."""

SAMPLED: Final[dict[str, int | float | bool]] = {**GREEDY, "do_sample": True, "top_k": 0}
"""Drawn from the model's own distribution: temperature 1, nothing cut off."""


class SteeredPosition(Protocol):
    """What `model.steering.last` says of one steered position."""

    position: int
    modality: Modality
    gate: float | None
    strength: float | None
    calibrated: bool | None


@dataclass(frozen=True)
class Answers:
    """Answers to a batch of B requests.

    Attributes:
        texts: B answers without special tokens.
        steered: For each request its steered positions, in order; empty lists with steering off.
        logits: (B, V), of the first generated token, in the model's dtype.
    """

    texts: list[str]
    steered: list[list[SteeredPosition]]
    logits: torch.Tensor

    @property
    def decisions(self) -> list[Decision | None]:
        """What the method did for each request; None where it did nothing."""
        return [_decision(positions) for positions in self.steered]


def _decision(positions: Sequence[SteeredPosition]) -> Decision | None:
    """That of the last position, where the answer begins; calibrated are all or none."""
    if not positions:
        return None
    last = positions[-1]
    covered = [p.calibrated for p in positions if p.calibrated is not None]
    return Decision(
        active=any(position.strength != 0 for position in positions),
        gate=last.gate,
        strength=last.strength,
        position=last.position,
        modality=last.modality,
        calibrated=all(covered) if covered else None,
    )


@dataclass(frozen=True)
class Loaded:
    """A steered model and its processor, as `from_pretrained` gives them."""

    model: Any
    processor: Any

    def inputs(self, requests: Sequence[Request]) -> Any:
        """The requests as model inputs, where and as the model wants them."""
        return collate(self.processor, requests).to(self.model.device, self.model.dtype)

    def answer(
        self, inputs: Any, max_new_tokens: int, *, steered: bool, seed: int | None = None
    ) -> Answers:
        """Generate.

        Args:
            inputs: Of `Loaded.inputs`.
            max_new_tokens: Longest answer, in tokens.
            steered: Whether steering is on.
            seed: Of an answer that is sampled; None for a greedy one.

        Raises:
            AttributeError: Steering is to be on and the model has none.
        """
        if steered or hasattr(self.model, "steering"):
            self.model.steering.enabled = steered
        if seed is not None:
            torch.manual_seed(seed)
        out = self.model.generate(
            **inputs,
            **(GREEDY if seed is None else SAMPLED),
            max_new_tokens=max_new_tokens,
            return_dict_in_generate=True,
            output_logits=True,
        )
        rows, width = inputs["input_ids"].shape
        texts = self.processor.batch_decode(out.sequences[:, width:], skip_special_tokens=True)
        last = self.model.steering.last if steered else []
        return Answers(list(texts), list(last) or [[] for _ in range(rows)], out.logits[0])


def load(
    directory: Path,
    modalities: Iterable[Modality],
    device: str,
    dtype: str | None,
    quantization: str = NONE,
) -> Loaded:
    """Load a steered directory the way its card tells users to.

    Its processor renders requests in the thinking mode that was calibrated.

    Args:
        directory: Steered checkpoint.
        modalities: What it takes.
        device: For example `cpu` or `cuda`.
        dtype: Name of a torch dtype; None for the one the checkpoint is saved in.
        quantization: Scheme to load it in; `none` or `own` for the one it is saved in.

    Raises:
        ExportError: The directory does not load.
    """
    try:
        config = read_config(directory)
        options = loading_options(config, quantization, dtype=dtype or "auto", device=device)
        processor = transformers.AutoProcessor.from_pretrained(directory, trust_remote_code=True)
        processor = with_options(processor, config.get("steering", {}).get("template_options", {}))
        auto = getattr(transformers, auto_class(modalities))
        model = auto.from_pretrained(directory, trust_remote_code=True, **options)
        refuse_unfit_layers(model)
    except (
        OSError,
        ValueError,
        RuntimeError,
        ImportError,
        ExportError,
        SafetensorError,
    ) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ExportError(f"{directory} does not load: {reason}") from error
    model = model if "device_map" in options else model.to(device)
    return Loaded(model.eval(), processor)


def load_calibrated(
    directory: Path, record: ArtefactRecord, device: str, dtype: str | None = None
) -> Loaded:
    """As `load`, in the quantization that the checkpoint was calibrated for."""
    source = record.source
    dtype_name = dtype or (source.dtype if source.quantization in SCHEMES else None)
    return load(directory, source.modalities, device, dtype_name, source.quantization)
