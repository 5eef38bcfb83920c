"""A family is data: one JSON file per `model_type`, and this typed reader."""

from functools import cache
from importlib.metadata import version
from importlib.resources import files
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import Modality

__all__ = [
    "OTHER_FILES",
    "STEERED_TYPE",
    "UNSTEERABLE",
    "Family",
    "decoder_layers",
    "families",
    "family_of",
    "names_code",
    "refuse_custom_code",
    "text_decoder",
]

STEERED_TYPE: Final = "steered_"
OTHER_FILES: Final = ("transformers_weights", "custom_pipelines")
"""Keys of a config.json that make Transformers load something else."""

_THINKER: Final = (
    "it also speaks; give its thinker alone, as Transformers saves it: "
    "{name}ThinkerForConditionalGeneration.from_pretrained(DIR).save_pretrained(NEW), and the "
    "files of the processor beside it"
)
_SWITCHED: Final = (
    "it runs other weights beside {what} than for text (LoRA that it switches on), so what is "
    "measured on text does not hold there; take a family that shares its weights"
)
UNSTEERABLE: Final[dict[str, str]] = {
    "gemma3n": "its decoder layers pass several streams on (AltUp), not one residual stream; take "
    "Gemma 4, whose small models take the same inputs",
    "granite_speech": _SWITCHED.format(what="audio"),
    "granite_speech_plus": _SWITCHED.format(what="audio"),
    "phi4_multimodal": _SWITCHED.format(what="pictures and audio"),
    "qwen2_5_omni": _THINKER.format(name="Qwen2_5Omni"),
    "qwen3_omni_moe": _THINKER.format(name="Qwen3OmniMoe"),
}
"""Model types that cannot be steered, each with the reason and what to do instead."""


class Family(BaseModel):
    """What the exporter must know about a model family."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: str
    """For people, for example `Gemma 3`."""
    model_type: str
    """`model_type` of the base's config.json."""
    config: str
    """Native configuration class in `transformers`."""
    model: str
    """Native class behind `AutoModel`; the generator itself where there is no headless class."""
    generator: str
    """Native class with the language head, behind `auto_class`."""
    auto_class: str
    """Auto class that people load the model with."""
    also: tuple[str, ...] = ()
    """Others that load it, beside those for text and for several modalities."""
    pipeline_tag: str
    modalities: tuple[Modality, ...]
    """Modalities that the model can tell apart, so that each gets its own re-centering."""
    placeholders: dict[Modality, str]
    """Modality to the configuration attribute that holds a token id which shows it: the placeholder
    or, where image and video share one, the token that opens a clip."""
    shown_by: dict[str, Literal["image", "video", "audio"]]
    """Parameter of `forward` to the modality that it brings. What was not calibrated is refused."""
    decoder: str
    """Module path of the text decoder in the generator; its `.layers` are the decoder layers."""
    activation: str
    """Key of the text configuration whose value is replaced by the guard on disk."""
    extra: str | None
    """Extra of this package that the family's processor needs, for example `video`."""
    parts: dict[Modality, str] = {}
    """Modality to the key of the configuration that some models of the family lack; those do not
    take it."""
    since: str = "5.16"
    """First Transformers version whose native classes are those described here."""
    notes: tuple[str, ...] = ()
    """Limits that users must know, one sentence each."""
    inspected: bool = False
    """Worked out from the model's classes by `families.inspection`, without tests of ours."""

    @property
    def disk_model_type(self) -> str:
        """`model_type` of a steered config.json, unknown to Transformers: it needs our code."""
        return STEERED_TYPE + self.model_type

    def of(self, raw: dict[str, Any]) -> "Family":
        """The family with the modalities that a model of it takes.

        Args:
            raw: The model's config.json.
        """
        absent = {modality for modality, key in self.parts.items() if not raw.get(key)}
        if not absent:
            return self
        kept = tuple(m for m in self.modalities if m not in absent)
        return self.model_copy(update={"modalities": kept})

    @property
    def extras(self) -> str:
        """That, and the one that sound is read with, with a comma between; empty for none."""
        sound = "audio" if "audio" in self.modalities else None
        return ",".join(dict.fromkeys(filter(None, (self.extra, sound))))

    @property
    def lacking(self) -> str | None:
        """Why the installed Transformers cannot run the family; None if it can."""
        installed = version("transformers")
        if _release(installed) >= _release(self.since):
            return None
        return f"{self.name} needs Transformers {self.since} or later, and {installed} is installed"


def _release(number: str) -> tuple[int, ...]:
    """Major and minor number of a version."""
    return tuple(int(part) for part in number.split(".")[:2])


@cache
def families() -> dict[str, Family]:
    """All families, keyed and sorted by model type."""
    folder = files("mars_export.families")
    found = [
        Family.model_validate_json(entry.read_text("utf-8"))
        for entry in folder.iterdir()
        if entry.name.endswith(".json")
    ]
    return {family.model_type: family for family in sorted(found, key=lambda f: f.model_type)}


def family_of(model_type: str) -> Family:
    """The family of a base model.

    Raises:
        ExportError: if the family is not supported, here or at all, or the model is already
            steered.
    """
    known = families()
    if model_type in known:
        family = known[model_type]
        if family.lacking:
            update = f"pip install -U 'transformers>={family.since}'"
            raise ExportError(f"{family.lacking}; run `{update}`")
        return family
    if model_type.startswith(STEERED_TYPE):
        raise ExportError("the model is already steered; pass the base model that it was made from")
    if model_type in UNSTEERABLE:
        raise ExportError(f"{model_type} cannot be steered: {UNSTEERABLE[model_type]}")
    raise ExportError(
        f"model type {model_type!r} is not supported (supported: {', '.join(known)}); "
        "--allow-unknown-family tries without a family file; to add one, start from what "
        "`python -m mars_export.families.inspection DIR` prints and follow docs/extending.md"
    )


def refuse_custom_code(raw: dict[str, Any]) -> None:
    """Refuse a base whose own code runs it: it would have to be trusted, and is not known here.

    Args:
        raw: The base's config.json.

    Raises:
        ExportError: if it has an `auto_map`, at any depth, or names other files to load.
    """
    for key in OTHER_FILES:
        if key in raw:
            raise ExportError(
                f"config.json of the base holds {key!r}, which loads something else; give a model "
                "without it"
            )
    if raw.get("auto_map") or any(names_code(value) for value in raw.values()):
        raise ExportError(
            "the base model needs custom code of its own (auto_map in its config.json), and only "
            "models that Transformers itself implements can be steered; look for a copy of the "
            "model in the format of Transformers, often named -hf"
        )


def names_code(value: Any) -> bool:
    """Whether there is an `auto_map` at any depth."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            if "auto_map" in item:
                return True
            pending += item.values()
        elif isinstance(item, list):
            pending += item
    return False


def text_decoder(model: Any) -> Any:
    """The module of a loaded model that holds the decoder layers."""
    decoder = model.get_decoder()
    # Llama 4 gives its language model with the head.
    return decoder if hasattr(decoder, "layers") else decoder.model


def decoder_layers(model: Any) -> Any:
    """Decoder layers of a loaded model, an `nn.ModuleList`."""
    return text_decoder(model).layers
