"""What is measured, the cheap and important cases first."""

from dataclasses import dataclass

__all__ = ["CASES", "CONTROL", "STEERED", "Case"]

STEERED = "mars-export"
"""The steered checkpoint among the subjects."""

CONTROL = "base again"
"""The base against itself: what the ratios of two equal things look like here."""


@dataclass(frozen=True)
class Case:
    """One setting. rows: batch size. tokens: text tokens of the longest row.

    way: `generate` and `forward` (a loop by hand), also `compiled`; `tools` are generate() too.
    """

    way: str
    prompt: str
    rows: int
    tokens: int = 0


CASES = (
    Case("generate", "text", 1),
    Case("generate", "text", 16),
    Case("generate", "image", 1),
    Case("generate", "image", 16),
    Case("tools", "text", 1),
    Case("tools (text decoder)", "text", 1),
    Case("forward", "text", 1),
    Case("tools", "text", 16),
    Case("forward", "text", 16),
    Case("forward", "image", 1),
    Case("compiled generate", "text", 1),
    Case("compiled forward", "text", 1),
    Case("compiled generate", "text", 16),
    Case("compiled generate", "image", 1),
    Case("compiled forward", "text", 16),
)
