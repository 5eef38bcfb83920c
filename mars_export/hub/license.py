"""The terms of the base model, which a steered checkpoint inherits."""

import re
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal
from urllib.parse import urlsplit

import yaml
from huggingface_hub.repocard import REGEX_YAML_BLOCK

from mars_export.common.errors import ExportError
from mars_export.families.directory import is_legal

__all__ = ["BaseCard", "License", "license_of", "read_card", "with_terms"]

_OPENED: Final = re.compile(r"\s*---[ \t]*[\r\n]+(?!---)")
"""Beginning of a card with front matter."""


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
    notes: tuple[str, ...] = ()
    """`evaluation_notes`: what readers of an evaluation of the model should know."""
    licenses: tuple[str, ...] = ()
    """Identifiers of all licenses that it names; `license` is set where it names one."""


def read_card(directory: Path) -> BaseCard:
    """Read the front matter of a model directory's README.md; an empty card if there is none.

    Raises:
        ExportError: if it cannot be read: its terms and its gate would be lost.
    """
    data = front_matter(directory / "README.md")
    stated = data.get("license")
    if stated is not None and not all(
        isinstance(word, str) for word in (stated if isinstance(stated, list) else [stated])
    ):
        raise ExportError(
            f"{directory / 'README.md'}: `license` of the front matter is no name of a license "
            f"({stated!r}); correct it, in a copy if the model is not yours"
        )
    tag = data.get("pipeline_tag")
    return BaseCard(
        license=_license(data),
        licenses=_named(data.get("license")),
        languages=_languages(data.get("language")),
        pipeline_tag=tag if isinstance(tag, str) else None,
        gated="manual" if any(str(key).startswith("extra_gated") for key in data) else False,
        notes=_strings(data.get("evaluation_notes")),
    )


def with_terms(terms: License, directory: Path, origin: str | None) -> License:
    """The license, whose link leads to its terms from a copy of the model too.

    Args:
        terms: Of the base model.
        directory: The base model.
        origin: Address of its files on the Hub; None for a local directory.

    Raises:
        ExportError: if the link leads to no file that is copied, and none on the Hub either.
    """
    if not terms.link or urlsplit(terms.link).scheme or terms.link.startswith("#"):
        return terms
    path = PurePosixPath(terms.link)
    if len(path.parts) == 1 and is_legal(path.name) and (directory / path.name).is_file():
        return replace(terms, link=path.name)
    if origin is not None:
        return replace(terms, link=f"{origin}/{path.as_posix().lstrip('/')}")
    raise ExportError(
        f"{directory / 'README.md'}: license_link names {terms.link}, which is no file of terms "
        "beside it, such as LICENSE or terms.txt; put it there, or give its address"
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
    if len(card.licenses) > 1:
        return _one_of(model, card.licenses, override)
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


def _one_of(model: str, licenses: tuple[str, ...], override: str | None) -> License:
    """The license that the user chose among several."""
    chosen = (override or "").strip().lower()
    if chosen not in licenses:
        raise ExportError(
            f"the card of {model} names several licenses ({', '.join(licenses)}): state which one "
            f"its steered checkpoint is under, for example `--license {licenses[0]}`"
        )
    return License(chosen)


def front_matter(card: Path) -> dict[str, Any]:
    """The YAML at the beginning of a card; empty if there is no card or none in it.

    Raises:
        ExportError: if it cannot be read, with the line.
    """
    try:
        raw = card.read_bytes()
    except FileNotFoundError:
        return {}
    except OSError as error:
        raise ExportError(f"{card} cannot be read: {error.strerror}; check it") from error
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        raise ExportError(f"{card}, line {line}: not UTF-8; save it as UTF-8") from error
    block = REGEX_YAML_BLOCK.search(text)
    if block is None:
        if _OPENED.match(text):
            raise _unreadable(card, 1, "it is no block between two lines of `---`")
        return {}
    first = block[1].count("\n") + 1
    try:
        data = yaml.safe_load(block[2])
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = first + (mark.line if mark else 0)
        raise _unreadable(card, line, error.problem or error.context or "") from error
    except (yaml.YAMLError, ValueError, RecursionError) as error:  # odd characters, dates
        raise _unreadable(card, first, str(error)) from error
    if not isinstance(data, dict | None):
        raise _unreadable(card, first, "it is no list of keys with values")
    return data or {}


def _unreadable(card: Path, line: int, problem: str) -> ExportError:
    return ExportError(
        f"{card}, line {line}: the front matter is not valid YAML ({' '.join(problem.split())}), "
        "so its license and its gate are unknown; correct it, in a copy if the model is not yours"
    )


def _named(value: Any) -> tuple[str, ...]:
    """Identifiers of licenses, as written or in a list."""
    words = (word.strip().lower() for word in _strings(value))
    return tuple(dict.fromkeys(word for word in words if word not in {"", "unknown"}))


def _license(data: dict[str, Any]) -> License | None:
    ids = _named(data.get("license"))
    if len(ids) != 1:
        return None
    name, link = data.get("license_name"), data.get("license_link")
    return License(ids[0], str(name) if name else None, str(link) if link else None)


def _languages(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    # YAML reads the code of Norwegian, `no`, as a boolean.
    return _strings(["no" if item is False else item for item in values])


def _strings(value: Any) -> tuple[str, ...]:
    values = value if isinstance(value, list) else [value]
    return tuple(item for item in values if isinstance(item, str))
