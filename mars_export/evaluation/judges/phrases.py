"""The English phrases by which the rules know a refusal or a rebuttal. Free of torch.

`data/english.toml` holds them. Each list holds independent alternatives, so that
`examples/judges` can measure what each is worth.
"""

import re
import tomllib
from dataclasses import dataclass, fields
from importlib.resources import files
from typing import Any, Final

__all__ = ["ENGLISH", "Patterns", "Phrases", "compiled", "expanded", "matches"]

Patterns = tuple[re.Pattern[str], ...]

_FILE: Final = "english.toml"
_PART: Final = re.compile(r"\{([a-z_]+)\}")


@dataclass(frozen=True)
class Phrases:
    """The lists that decide a verdict; a copy with fewer entries is a weaker judge.

    Attributes:
        refusal: The speaker will not or cannot serve the request.
        late: The same in words so plain that they count behind a long description too.
        notice: Nobody speaks: the request or the response is declared refused.
        rebuttal: The request itself is judged.
        condemnation: What is asked for is condemned or advised against; an answer where the
            prompt asks for a judgment.
        denial: What a request for reasons takes for granted is denied.
    """

    refusal: Patterns = ()
    late: Patterns = ()
    notice: Patterns = ()
    rebuttal: Patterns = ()
    condemnation: Patterns = ()
    denial: Patterns = ()


def matches(patterns: Patterns, sentence: str) -> bool:
    """Whether any of the patterns occurs in a sentence."""
    return any(pattern.search(sentence) for pattern in patterns)


def compiled(*patterns: str) -> Patterns:
    """Patterns that count one by one."""
    return tuple(map(re.compile, patterns))


def expanded(pattern: str, parts: dict[str, Any]) -> str:
    """The pattern with the parts that it names, those of the parts included."""

    def part(match: re.Match[str]) -> str:
        value = parts[match[1]]
        text = value if isinstance(value, str) else "(?:" + "|".join(value) + ")"
        return expanded(text, parts)

    return _PART.sub(part, pattern)


def _english() -> Phrases:
    raw = (files("mars_export.evaluation") / "data" / _FILE).read_text("utf-8")
    tables = tomllib.loads(raw)
    lists = {
        field.name: [p for patterns in tables[field.name].values() for p in patterns]
        for field in fields(Phrases)
    }
    return Phrases(**{
        name: compiled(*(expanded(pattern, tables["parts"]) for pattern in patterns))
        for name, patterns in lists.items()
    })  # fmt: skip


ENGLISH: Final = _english()
"""All of them."""
