"""The terms of the base model, which a steered checkpoint inherits."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import yaml
from huggingface_hub.repocard import metadata_load

from mars_export.common.errors import ExportError

__all__ = ["BaseCard", "License", "license_of", "read_card"]


@dataclass(frozen=True)
class License:
    """A license as Hub cards name it."""

    id: str
    """Hub identifier, for example `apache-2.0`, `gemma` or `other`."""
    name: str | None = None
    """Only with `other`: short name of the terms."""
    link: str | None = None
    """Only with `other`: where the terms are."""


@dataclass(frozen=True)
class BaseCard:
    """What a base model's README.md says in its front matter."""

    license: License | None = None
    languages: tuple[str, ...] = ()
    pipeline_tag: str | None = None
    gated: Literal["manual", False] = False
    """`manual` when the card holds the words that the Hub shows before it grants access."""


def read_card(directory: Path) -> BaseCard:
    """Read the front matter of a model directory's README.md; an empty card if there is none."""
    try:
        data: dict[str, Any] = metadata_load(directory / "README.md") or {}
    except (OSError, ValueError, yaml.YAMLError):
        return BaseCard()
    tag = data.get("pipeline_tag")
    return BaseCard(
        license=_license(data),
        languages=_languages(data.get("language")),
        pipeline_tag=tag if isinstance(tag, str) else None,
        gated="manual" if any(str(key).startswith("extra_gated") for key in data) else False,
    )


def license_of(model: str, card: BaseCard, override: str | None = None) -> License:
    """License that the steered checkpoint inherits.

    Args:
        model: Name of the base model, for messages.
        card: Its card.
        override: License that the user states; only for a base whose card names none.

    Raises:
        ExportError: if the license is unknown, or the user states another one than the card.
    """
    own = card.license
    if own is None and override is None:
        raise ExportError(
            f"the card of {model} names no license: look it up and state it, "
            "for example `--license apache-2.0`"
        )
    if own is None:
        return License(str(override).strip().lower())
    if override is not None and override.strip().lower() != own.id:
        raise ExportError(
            f"{model} is under {own.id}, which its steered checkpoint inherits: "
            f"leave out --license {override}"
        )
    return own


def _license(data: dict[str, Any]) -> License | None:
    value = data.get("license")
    if isinstance(value, list) and len(value) == 1:
        value = value[0]
    if not isinstance(value, str) or value.strip().lower() in {"", "unknown"}:
        return None
    name, link = data.get("license_name"), data.get("license_link")
    return License(value.strip().lower(), str(name) if name else None, str(link) if link else None)


def _languages(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    # YAML reads the code of Norwegian, `no`, as a boolean.
    codes = ["no" if item is False else item for item in values]
    return tuple(item for item in codes if isinstance(item, str))
