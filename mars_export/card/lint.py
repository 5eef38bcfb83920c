"""Lints of the finished card: no template edit can bring a forbidden claim back."""

import re
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from huggingface_hub import ModelCard

from mars_export.card.consistency import raise_first
from mars_export.card.data import CardData
from mars_export.card.markdown import code
from mars_export.card.numbers import MINIMUM_N, RATE
from mars_export.card.results import effect
from mars_export.card.utility import open_losses

__all__ = ["lint_responses", "lint_text"]

Problems = Iterator[str]
_RESPONSE_LENGTH: Final = 24
"""Shorter responses may occur in a card's own words."""


def lint_text(data: CardData, text: str) -> None:
    """Check the rendered card.

    Raises:
        ExportError: naming the first lint that fails.
    """
    for name, check in _TEXT_LINTS.items():
        raise_first(name, check(data, text))


def lint_responses(text: str, responses: Iterable[str]) -> None:
    """Check that the card quotes no response of the model.

    Raises:
        ExportError: naming the lint; the response itself is not repeated.
    """
    flat = _flat(text)
    quoted = any(len(r) >= _RESPONSE_LENGTH and r in flat for r in map(_flat, responses))
    raise_first("no-responses", iter(["it quotes a response of the model"] if quoted else []))


def _flat(text: str) -> str:
    return " ".join(text.split())


def _prose(text: str) -> str:
    """The card's own words: no front matter, and no names, which the template writes as code."""
    text = re.sub(r"^```bash\n.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return re.sub(r"`[^`\n]+`", "", text.split("---\n", 2)[-1])


def _bare_rates(_: CardData, text: str) -> Problems:
    """Percentages may occur only in the form that `numbers.rate` gives, or as the level 95 %."""
    rest = re.sub(r"\b95 % interval", "", RATE.sub("", _prose(text)))
    for match in re.finditer(r"\d[\d.]*\s?(?:%|percent)", rest):
        yield f"`{match[0]}` stands without n and interval"


def _bare_zero(_: CardData, text: str) -> Problems:
    for match in re.finditer(r"(?<![\d.])0(?:\.0+)?\s?%", _prose(text)):
        yield f"`{match[0]}` needs its upper bound; write x/n and `at most`"


def _small(_: CardData, text: str) -> Problems:
    for match in RATE.finditer(text):
        if int(match["n"]) < MINIMUM_N:
            yield f"`{match[0]}` is a percentage of fewer than {MINIMUM_N} requests"


def _attack_words(_: CardData, text: str) -> Problems:
    for match in re.finditer(r"\bASR\b|attack[ -]success", _prose(text)):
        yield f"a refusal rate says nothing about harm, yet the card says `{match[0]}`"


def _headline(data: CardData, text: str) -> Problems:
    if data.results is None or data.results.undecided is None:
        return
    if data.results.rows or RATE.search(_section(text, "At a glance")) or "model-index" in text:
        yield "the judge left more than 1 in 100 responses undecided, yet there is a headline"


def _claims(data: CardData, _: str) -> Problems:
    if data.report is None or data.results is None:
        return
    supported = {(p.modality, p.harmful): effect(p) for p in data.report.pairs}
    for row in data.results.rows:
        if row.effect not in ("unclear", supported[row.modality, row.harmful]):
            yield (
                f"a change for {row.label} requests is claimed, but p is above .05 or the "
                "interval holds 0"
            )


def _utility_loss(data: CardData, text: str) -> Problems:
    if data.report is None or data.utility is None:
        return
    glance = _section(text, "At a glance")
    for line in open_losses(data.utility):
        if f"{code(line.task)} {code(line.metric)}" not in glance:
            yield (
                f"{line.task} {line.metric} may lose more than its margin, and At a glance does "
                "not say so"
            )


def _section(text: str, title: str) -> str:
    found = re.search(rf"^## {title}$(.*?)(?=^## |\Z)", text, re.MULTILINE | re.DOTALL)
    return found[1] if found else ""


def _same_license(data: CardData, text: str) -> Problems:
    front = ModelCard(text, ignore_metadata_errors=False).data
    base = data.manifest.base
    for key, want in (
        ("license", base.license),
        ("license_name", base.license_name),
        ("license_link", base.license_link),
    ):
        if getattr(front, key, None) != want:
            yield f"`{key}` differs from the base model's"


def _unfinished(_: CardData, text: str) -> Problems:
    for match in re.finditer(r"HUMAN-REVIEW|\bTODO\b|\bFIXME\b", _prose(text)):
        yield f"an unresolved `{match[0]}` is left in it"


def _not_evaluated(data: CardData, text: str) -> Problems:
    first = text.split("---\n", 2)[-1].lstrip().splitlines()[0]
    if data.report is None and "not evaluated" not in first:
        yield "there is no evaluation, and its first line does not say so"


_TEXT_LINTS: Final[dict[str, Callable[[CardData, str], Problems]]] = {
    "first-line": _not_evaluated,
    "zero-without-bound": _bare_zero,
    "rate-without-interval": _bare_rates,
    "small-category": _small,
    "not-attack-success": _attack_words,
    "undecided-headline": _headline,
    "unsupported-claim": _claims,
    "utility-loss": _utility_loss,
    "inherited-license": _same_license,
    "unfinished": _unfinished,
}
