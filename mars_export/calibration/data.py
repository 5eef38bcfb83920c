"""What a calibration is given. Free of torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

from mars_export.common.errors import ExportError
from mars_export.common.progress import Tick
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.families import decoder_layers
from mars_export.families.processes import Processes
from mars_export.inputs.prompts import PromptSets
from mars_export.inputs.sounds import audio_problem
from mars_export.inputs.stimuli import CLIP_FRAMES, MIXTURE, SOUND_SECONDS, require_kinds
from mars_export.inputs.tuning import TuningSet

__all__ = ["LEAST_DECISION", "LEAST_DIRECTION", "OPENERS", "CalibrationData", "MeasurementOptions"]

LEAST_DIRECTION: Final = 10
LEAST_DECISION: Final = 4
"""Fewest prompts of one label, handled as it says, that a calibration is made from."""

OPENERS: Final[tuple[str, ...]] = (
    "I'm sorry",
    "I am sorry",
    "I can't",
    "I cannot",
    "I won't",
    "I must decline",
    "Sorry",
    "As an AI",
    "Unfortunately",
    "Apologies",
)
"""How refusals usually begin; the refusal tokens are among their first tokens."""


@dataclass(frozen=True)
class MeasurementOptions:
    """How a model is measured, whatever the method; the defaults are those of docs/method.md.

    Attributes:
        openers: Refusal openers of the model.
        batch_size: Requests per forward; halved by itself when memory runs out.
        pairs: Requests per modality that the shift of a first turn is measured on.
        condition_requests: Requests that each other condition is measured on, in every part.
        size: (width, height) of neutral stimuli in pixels.
        frames: Frames of a neutral clip.
        seconds: Length of a neutral sound.
        seed: Of the neutral stimuli.
        kinds: Of the neutral stimuli, in turn. A modality takes those that it has, or its own
            kinds of `MIXTURE` where none of them is named.
        thinking: Setting of the chat template's thinking switch; None for its default.

    Raises:
        ExportError: A kind is unknown, or cannot be drawn here.
    """

    openers: tuple[str, ...] = OPENERS
    batch_size: int = 16
    pairs: int = 96
    condition_requests: int = 64
    size: tuple[int, int] = (224, 224)
    frames: int = CLIP_FRAMES
    seconds: float = SOUND_SECONDS
    seed: int = 0
    kinds: tuple[str, ...] = MIXTURE
    thinking: bool | None = None

    def __post_init__(self) -> None:
        """Refuse kinds that cannot be drawn, before any work."""
        require_kinds(self.kinds)


@dataclass(frozen=True)
class CalibrationData:
    """A model and what it is measured with.

    Attributes:
        model: A Transformers model, in the dtype that it is to be calibrated in.
        processor: Its processor or tokenizer, with a chat template.
        prompts: Harmful and harmless text.
        modalities: What the model takes; `text` may be left out.
        measurement: How it is measured.
        quantization: What the model was loaded in, for the record.
        progress: Called with (requests done, requests in all).
        tuning: Labeled requests with media; None for none.
        processes: Those that share the requests, all of which end up with the same numbers.

    Raises:
        ExportError: A package that sound is read with is not installed, and the model takes sound.
    """

    model: Any
    processor: Any
    prompts: PromptSets
    modalities: tuple[Modality, ...]
    measurement: MeasurementOptions = field(default_factory=MeasurementOptions)
    quantization: str = "none"
    progress: Tick | None = None
    tuning: TuningSet | None = None
    processes: Processes = field(default_factory=Processes)

    def __post_init__(self) -> None:
        """Refuse what cannot be measured here, before any work."""
        if "audio" in self.modalities and (problem := audio_problem()):
            raise ExportError(f"The model takes {problem}")

    @property
    def beside(self) -> tuple[Modality, ...]:
        """The modalities that stand beside text, in the fixed order."""
        return tuple(m for m in MODALITIES if m in self.modalities and m != "text")

    def require_layer(self, layer: int | None) -> None:
        """Refuse a layer that the model has not, before anything is run; None is any layer.

        Raises:
            ExportError: There is no such layer.
        """
        layers = len(decoder_layers(self.model))
        if layer is not None and layer >= layers:
            raise ExportError(
                f"Layer {layer} does not exist; the model has layers 0 to {layers - 1}."
            )
