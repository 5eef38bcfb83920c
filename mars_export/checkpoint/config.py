"""The steered config.json, made from the base's by editing its JSON."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from mars_export.checkpoint.modeling import MODELING_NAME
from mars_export.checkpoint.tensors import LayerTensors, steering_digest
from mars_export.common.errors import ExportError
from mars_export.families import STEERED_TYPE, Family, refuse_custom_code
from mars_export.methods.base import ArtefactRecord
from mars_export.runtime.guard import GUARD
from mars_export.runtime.host import RULES_VERSION

__all__ = ["auto_map", "refused", "steered_config", "steering_rules", "unsteered_config"]

_STEERED: Final = "Steered"
"""Prefix of a class in the modeling file."""


def steered_config(
    raw: dict[str, Any],
    family: Family,
    record: ArtefactRecord,
    tensors: LayerTensors,
) -> dict[str, Any]:
    """Config of the steered checkpoint.

    Args:
        raw: The base's config.json.
        family: Family of the base.
        record: Calibration whose tensors are shipped.
        tensors: The steering tensors; the host checks their digest at load.

    Returns:
        A new dictionary with its own `model_type` and class names, the guard in place of the text
        activation, `auto_map`, and a `steering` entry whose `sha256` covers the entry itself and
        the tensors.

    Raises:
        ExportError: if the base needs custom code of its own.
    """
    refuse_custom_code(raw)
    config = copy.deepcopy(raw)
    # Transformers leaves defaults out of config.json, so the native class is asked.
    native = _activation(config, family)
    _text(config)[family.activation] = GUARD
    if native is None or _activation(config, family) != GUARD:
        raise ExportError(
            f"config.json of the base: the text model has no {family.activation!r} to guard, so "
            "the steering could be dropped unseen; give it a text_config that names one"
        )
    config["model_type"] = family.disk_model_type
    # Converters prefer the class that the text part names, which they know, to the one above it.
    _rename_classes(_text(config), _STEERED.__add__)
    config["architectures"] = [f"{_STEERED}{family.generator}"]
    config["auto_map"] = auto_map(family)
    rules: dict[str, Any] = {
        "version": RULES_VERSION,
        "method": record.method,
        **record.rules,
        "modalities": list(record.source.modalities),
        "headers": [header.model_dump() for header in record.source.headers],
        "turn_starts": record.source.turn_starts,
        "placeholders": dict(family.placeholders),
        "refused": refused(family, record),
        "guarded": {family.activation: native},
        "calibrated_on": _calibrated_on(record),
    }
    if record.source.quantization != "none":
        rules["quantization"] = record.source.quantization
    if record.source.template_options:
        rules["template_options"] = record.source.template_options
    config["steering"] = {**rules, "sha256": steering_digest(rules, tensors)}
    return config


def unsteered_config(config: dict[str, Any], origin: Path) -> dict[str, Any]:
    """Config of the model beneath the steering: `steered_config`, undone.

    Args:
        config: A steered config.json.
        origin: Its directory, for the message.

    Raises:
        ExportError: if it is not that of a steered checkpoint.
    """
    rules = steering_rules(config, origin)
    native = {k: copy.deepcopy(v) for k, v in config.items() if k not in ("steering", "auto_map")}
    native["model_type"] = config["model_type"].removeprefix(STEERED_TYPE)
    native["architectures"] = [
        str(name).removeprefix(_STEERED) for name in config.get("architectures") or ()
    ]
    text = _text(native)
    _rename_classes(text, lambda name: name.removeprefix(_STEERED))
    text.update(rules["guarded"])
    return native


def steering_rules(config: dict[str, Any], origin: Path) -> dict[str, Any]:
    """`config.steering`; raises as `unsteered_config`."""
    rules = config.get("steering")
    text = config.get("text_config")
    steered = str(config.get("model_type")).startswith(STEERED_TYPE)
    steered = steered and isinstance(text, dict | None)
    if not steered or not isinstance(rules, dict) or not isinstance(rules.get("guarded"), dict):
        raise ExportError(
            f"{origin} is not a steered checkpoint: its config.json has no steering; give the "
            "directory that save_pretrained wrote from a steered model"
        )
    if rules.get("version") != RULES_VERSION:
        raise ExportError(
            f"{origin}: the steering rules in its config.json are of version "
            f"{rules.get('version')!r}, and this release of mars-export reads {RULES_VERSION}; "
            "export the model again, or use the release that wrote it"
        )
    return rules


def _text(config: dict[str, Any]) -> dict[str, Any]:
    """What a config.json says of the text model: all of it where it has no part for that."""
    part = config.get("text_config")
    return part if isinstance(part, dict) else config


def _rename_classes(part: dict[str, Any], rename: Callable[[str], str]) -> None:
    """Rename the `architectures` of a part of a config.json, where it has any."""
    names = part.get("architectures")
    if isinstance(names, list):
        part["architectures"] = [rename(n) if isinstance(n, str) else n for n in names]


def auto_map(family: Family) -> dict[str, str]:
    """Auto class to the class in the modeling file."""
    module = MODELING_NAME.removesuffix(".py")
    generator = f"{module}.Steered{family.generator}"
    names = [family.auto_class, *family.also, "AutoModelForCausalLM"]
    if family.placeholders:
        names.append("AutoModelForMultimodalLM")
    return {
        "AutoConfig": f"{module}.SteeredConfig",
        "AutoModel": f"{module}.Steered{family.model}",
        **dict.fromkeys(names, generator),
    }


def refused(family: Family, record: ArtefactRecord) -> dict[str, str]:
    """Inputs without a measured shift: parameters, and keys of encoder outputs given instead."""
    brought = family.shown_by | {modality: modality for modality in family.shown_by.values()}
    calibrated = record.source.modalities
    return {name: modality for name, modality in brought.items() if modality not in calibrated}


def _calibrated_on(record: ArtefactRecord) -> dict[str, Any]:
    """What a checkpoint that is trained and saved again still says of its calibration."""
    source = record.source
    files = {label: {"name": p.name, "sha256": p.sha256} for label, p in source.prompts.items()}
    stated: dict[str, Any] = {**files, "seed": source.seed, "neutral": list(source.kinds)}
    if (tuning := source.tuning) is not None:
        counts = {modality: dict(labels) for modality, labels in tuning.counts.items()}
        stated["tuning"] = {"name": tuning.name, "sha256": tuning.sha256, "requests": counts}
    return stated


def _activation(config: dict[str, Any], family: Family) -> str | None:
    """The text activation that the native class reads from a config.json."""
    import transformers

    raw = {**copy.deepcopy(config), "model_type": family.model_type}
    native = getattr(transformers, family.config).from_dict(raw)
    return getattr(native.get_text_config(), family.activation, None)
