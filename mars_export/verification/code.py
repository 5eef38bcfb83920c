"""Checks of the code: it is ours, byte for byte, and nothing refers to any other."""

import hashlib
from typing import Any

from mars_export.checkpoint.config import auto_map
from mars_export.checkpoint.modeling import MODELING_NAME, modeling_source
from mars_export.checkpoint.released import released
from mars_export.families.directory import read_json
from mars_export.verification.report import CheckFailedError
from mars_export.verification.subject import Subject

__all__ = ["code_is_ours", "no_other_code_is_named"]


def code_is_ours(subject: Subject) -> str:
    """The modeling file against what this version and the released ones write for the family."""
    stated = subject.manifest.modeling_file
    if stated != MODELING_NAME:
        raise CheckFailedError(f"the manifest names {stated} instead of {MODELING_NAME}")
    found = hashlib.sha256(subject.place.fetch(MODELING_NAME).read_bytes()).hexdigest()
    model_type = subject.manifest.base.model_type
    for release in released():
        if (release.model_type, release.sha256) == (model_type, found):
            return f"{MODELING_NAME} is that of mars-export {release.version} for {model_type}"
    ours = modeling_source(subject.family).encode()
    if hashlib.sha256(ours).hexdigest() == found:
        return f"{MODELING_NAME} is what this version writes for {subject.family.name}"
    raise CheckFailedError(
        f"{MODELING_NAME} is not what mars-export writes for {subject.family.name}; "
        "do not load it, or update mars-export if a newer version wrote it"
    )


def no_other_code_is_named(subject: Subject) -> str:
    """`auto_map` leads to the modeling file only; no other file has one, or a foreign loader."""
    named, expected = subject.config.get("auto_map"), auto_map(subject.family)
    if named != expected:
        raise CheckFailedError(f"auto_map of config.json is {named}, not {expected}")
    problems = [
        f"config.json holds {key!r}, which loads something else"
        for key in ("transformers_weights", "custom_pipelines")
        if key in subject.config
    ]
    names = [name for name in subject.place.sizes if name.endswith(".json") and "/" not in name]
    problems += [
        f"{name} names code of its own (auto_map)"
        for name in names
        if name not in ("config.json", "tokenizer.json", "model.safetensors.index.json")
        and _names_code(read_json(subject.place.fetch(name)))
    ]
    if any(_names_code(value) for value in subject.config.values()):
        problems.append("config.json names code below its top level (auto_map)")
    if problems:
        raise CheckFailedError(*problems)
    return f"only {MODELING_NAME} is named as code, in {len(names)} configuration files"


def _names_code(value: Any) -> bool:
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
