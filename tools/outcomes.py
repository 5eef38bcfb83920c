"""How a recorded test can come out; a reason may follow behind a colon."""

from typing import Final

PASSED: Final = "passed"
NOT_APPLICABLE: Final = "does not apply"
REFUSED: Final = "refused natively"
RAISES: Final = "raises"
NOT_RUN: Final = "not run"
FAILED: Final = "failed"
WORST_LAST: Final = (PASSED, NOT_APPLICABLE, REFUSED, RAISES, NOT_RUN, FAILED)

SIGNS: Final = {PASSED: "✓", NOT_APPLICABLE: "-", REFUSED: "○", RAISES: "⊘"}
"""Sign of each outcome that a table may hold; the other outcomes stop it from being made."""


def kind(outcome: str) -> str:
    """An outcome without its reason."""
    return outcome.split(":")[0]


def reason(outcome: str) -> str:
    """What follows the kind, as the text of a table cell."""
    return outcome.partition(": ")[2].replace("|", r"\|")
