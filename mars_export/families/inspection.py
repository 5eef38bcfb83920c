"""A family worked out from the classes of the installed Transformers.

`python -m mars_export.families.inspection DIRECTORY` prints the JSON of a model's family, to start
a new file from. The exporter uses `inspect_family` for a family without a file, when told to.
"""

import inspect
import json
import sys
from pathlib import Path
from typing import Any, Final, Literal

from mars_export.common.errors import ExportError
from mars_export.common.vocabulary import MODALITIES, Modality
from mars_export.families.family import (
    STEERED_TYPE,
    UNSTEERABLE,
    Family,
    families,
    family_of,
    refuse_custom_code,
)

__all__ = ["family_for", "inspect_family"]

Shown = Literal["image", "video", "audio"]

_SHOWN_BY: Final[dict[str, Shown]] = {
    "pixel_values": "image",
    "image_pixel_values": "image",
    "image_hidden_states": "image",
    "pixel_values_videos": "video",
    "input_features": "audio",
    "audio_input_features": "audio",
}
_TOKENS: Final[dict[Modality, str]] = {
    modality: f"{modality}_token_id" for modality in MODALITIES if modality != "text"
}
_NONSENSE: Final = "no activation has this name"


def family_for(raw: dict[str, Any], *, allow_unknown: bool) -> Family:
    """The family of a base model, by its file or, if allowed, worked out from its classes.

    Args:
        raw: The base's config.json.
        allow_unknown: Whether a family without a file, and so without tests, will do.

    Raises:
        ExportError: if the family is not supported, the model is already steered, or it needs
            custom code of its own.
    """
    model_type = str(raw.get("model_type"))
    listed = model_type in families() or model_type in UNSTEERABLE
    known = listed or model_type.startswith(STEERED_TYPE) or not allow_unknown
    family = family_of(model_type).of(raw) if known else inspect_family(raw)
    refuse_custom_code(raw)
    return family


def inspect_family(raw: dict[str, Any]) -> Family:
    """Work out the family of a model from its config.json; no weights are read.

    The model is built on the meta device. The activation that the guard replaces is found by
    trying: the decoder must refuse to be built without it.

    Args:
        raw: The base's config.json.

    Returns:
        A family with `inspected` set. Video counts only if it has a placeholder token of its own.

    Raises:
        ExportError: if Transformers has no such model, or it is not a decoder with layers.
    """
    refuse_custom_code(raw)
    import torch

    generator = _generator(raw)
    config = generator.config_class.from_dict(raw)
    try:
        with torch.device("meta"):
            model = generator(config)
            decoder = _decoder(model, raw)
            activation = _activation(type(decoder), decoder.config, raw)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise _unknown(raw, f"its structure is not understood ({error})") from error
    shown = _shown_by(generator, raw)
    placeholders = _placeholders(config, set(shown.values()))
    headless = _mapped("MODEL_MAPPING", config) or generator
    unseen = [m for m in dict.fromkeys(shown.values()) if m not in placeholders]
    return Family(
        name=generator.__name__.removesuffix("ForConditionalGeneration").removesuffix(
            "ForCausalLM"
        ),
        model_type=config.model_type,
        config=type(config).__name__,
        model=headless.__name__,
        generator=generator.__name__,
        auto_class=_auto_class(config, generator, raw),
        pipeline_tag=_pipeline_tag(set(shown.values())),
        modalities=("text", *placeholders),
        placeholders=placeholders,
        shown_by=shown,
        decoder=next(path for path, module in model.named_modules() if module is decoder),
        activation=activation,
        extra="video" if "video" in placeholders else None,
        notes=tuple(
            f"{modality.capitalize()} is not calibrated and is refused while steering is on."
            for modality in unseen
        ),
        inspected=True,
    )


def _pipeline_tag(shown: set[Shown]) -> str:
    if shown == {"audio"}:
        return "audio-text-to-text"
    return "image-text-to-text" if shown else "text-generation"


def _generator(raw: dict[str, Any]) -> Any:
    import transformers

    name = next(iter(raw.get("architectures") or ()), "")
    found: Any = getattr(transformers, name, None)
    generates = inspect.isclass(found) and issubclass(found, transformers.GenerationMixin)
    if not generates:
        raise _unknown(raw, f"Transformers has no generating class {name!r}")
    if found.config_class.model_type != raw.get("model_type"):
        raise _unknown(raw, f"{name} is of type {found.config_class.model_type!r}")
    return found


def _decoder(model: Any, raw: dict[str, Any]) -> Any:
    decoder = model.get_decoder()
    decoder = decoder if hasattr(decoder, "layers") else getattr(decoder, "model", None)
    if decoder is None or not hasattr(decoder, "layers"):
        raise _unknown(raw, "its decoder has no layers")
    return decoder


def _activation(decoder: Any, config: Any, raw: dict[str, Any]) -> str:
    """Key of the text configuration without whose value the decoder cannot be built."""
    from transformers.activations import ACT2FN

    values = {k: v for k, v in vars(config).items() if isinstance(v, str) and v in ACT2FN}
    for key, value in values.items():
        setattr(config, key, _NONSENSE)
        try:
            decoder(config)
        except KeyError:
            return str(key)
        finally:
            setattr(config, key, value)
    raise _unknown(raw, "its decoder can be built without an activation, so nothing guards it")


def _shown_by(generator: Any, raw: dict[str, Any]) -> dict[str, Shown]:
    """Parameters that bring a modality; raise if the class has one that no known name brings."""
    parameters = inspect.signature(generator.forward).parameters
    found = {name: _SHOWN_BY[name] for name in parameters if name in _SHOWN_BY}
    for modality in ("image", "video", "audio"):
        if hasattr(generator, f"get_{modality}_features") and modality not in found.values():
            raise _unknown(raw, f"no known parameter of {generator.__name__} brings its {modality}")
    return found


def _placeholders(config: Any, shown: set[Shown]) -> dict[Modality, str]:
    """Modalities with a placeholder token of their own."""
    found: dict[Modality, str] = {}
    taken: set[int] = set()
    for modality, attribute in _TOKENS.items():
        token = getattr(config, attribute, None)
        if modality in shown and isinstance(token, int) and token not in taken:
            found[modality] = attribute
            taken.add(token)
    return found


def _auto_class(config: Any, generator: Any, raw: dict[str, Any]) -> str:
    mappings = {
        "AutoModelForImageTextToText": "MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING",
        "AutoModelForCausalLM": "MODEL_FOR_CAUSAL_LM_MAPPING",
        "AutoModelForMultimodalLM": "MODEL_FOR_MULTIMODAL_LM_MAPPING",
        "AutoModelForSeq2SeqLM": "MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING",
    }
    for auto, mapping in mappings.items():
        if _mapped(mapping, config) is generator:
            return auto
    raise _unknown(raw, f"no Auto class loads {generator.__name__}")


def _mapped(mapping: str, config: Any) -> Any:
    import transformers

    found = getattr(transformers, mapping).get(type(config), None)
    return found[0] if isinstance(found, tuple) else found


def _unknown(raw: dict[str, Any], reason: str) -> ExportError:
    return ExportError(
        f"model type {raw.get('model_type')!r} is not supported and cannot be worked out: "
        f"{reason}; docs/extending.md says how to add a family"
    )


def _main() -> None:
    family = inspect_family(json.loads((Path(sys.argv[1]) / "config.json").read_text("utf-8")))
    data = family.model_dump(mode="json", exclude={"inspected"})
    print(json.dumps(data, indent=2, ensure_ascii=False))


if __name__ == "__main__":
    _main()
