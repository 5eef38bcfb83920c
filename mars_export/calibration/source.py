"""What a calibration was made from, as it is written down. Free of torch."""

from typing import Literal, NamedTuple

from pydantic import Field

from mars_export.common.header import Header
from mars_export.common.record import Record
from mars_export.common.vocabulary import Label, Modality

__all__ = [
    "CalibrationSource",
    "DirectionSource",
    "Group",
    "Label",
    "PromptSource",
    "StimulusSource",
    "TuningSource",
]

DirectionSource = Literal["difference-of-means", "pca", "probe", "self-guard"]
"""What the refusal direction is estimated from (A3.1 of docs/method.md)."""


class Group(NamedTuple):
    """Calibration requests of one label: text alone, or text beside neutral stimuli."""

    label: Label
    modality: Modality

    def __str__(self) -> str:
        beside = "" if self.modality == "text" else f" + neutral {self.modality}"
        return f"{self.label} text{beside}"


class PromptSource(Record):
    """Where one set of calibration prompts came from."""

    name: str
    """Packaged set or file name, without its directory."""
    sha256: str
    """Digest of the file's bytes."""
    license: str
    direction: int
    """Prompts that directions and shifts are made from."""
    decision: int
    """Prompts that choices are made with: layer, origin, cap, strength."""
    check: int
    """Prompts that only check what was decided; the three parts share none."""
    dropped: int
    """Prompts that the model handled the other way (refused harmless, answered harmful)."""


class StimulusSource(Record):
    """The neutral stimuli of one modality; the same values make the same ones again."""

    generator: str
    """Name and version of what draws them."""
    kinds: tuple[str, ...]
    """Stimulus i is of kind i modulo their number."""
    seed: int
    count: int
    width: int
    """In pixels, as the height; 0 for a sound."""
    height: int
    frames: int
    """1 for an image or a sound."""
    seconds: float = 0.0
    """Of a sound; 0 for an image or a clip."""


class TuningSource(Record):
    """Labeled requests with media that a calibration was tuned on."""

    name: str
    """Of the suite."""
    sha256: str
    """Of the suite: its file and its media."""
    license: str
    fit: dict[Modality, dict[Label, int]]
    """Requests that origin and strength were chosen on."""
    held_out: dict[Modality, dict[Label, int]]
    """Requests of other topics, which say what that brought."""

    @property
    def counts(self) -> dict[Modality, dict[Label, int]]:
        """Of both halves."""
        return {
            modality: {label: n + self.held_out[modality][label] for label, n in labels.items()}
            for modality, labels in self.fit.items()
        }


class CalibrationSource(Record):
    """What a calibration was made from: the same for every method."""

    model_type: str
    layers: int
    hidden_size: int
    dtype: str
    quantization: str = "none"
    """A scheme of `--quantization`, or `own` where the base is stored quantized."""
    template_options: dict[str, bool] = Field(default_factory=dict)
    """What the chat template is to be told: its thinking switch, where one was chosen."""
    modalities: tuple[Modality, ...]
    """What was calibrated, in the order of the steering tensors; anything else is refused."""
    headers: list[Header]
    """How assistant turns begin in the chat template; the text is steered at their last tokens."""
    turn_starts: list[list[int]]
    """Token sequences that begin a turn of somebody else, as the user or a tool."""
    prompts: dict[str, PromptSource]
    """Keys `harmful` and `harmless`."""
    stimuli: dict[Modality, StimulusSource]
    tuning: TuningSource | None = None
    """What the method was tuned on beside text and neutral stimuli; None for nothing."""
    seed: int
    seconds: float

    @property
    def kinds(self) -> tuple[str, ...]:
        """Of the neutral stimuli of all modalities; none where text alone is taken."""
        every = (kind for stimuli in self.stimuli.values() for kind in stimuli.kinds)
        return tuple(dict.fromkeys(every))
