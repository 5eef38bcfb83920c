"""Names of what a steered directory gets after its manifest, relative to it."""

from typing import Final

__all__ = [
    "ADAPTIVE_NAME",
    "CARD_NAME",
    "EVALUATION",
    "EXCHANGE_FILE",
    "EXCHANGE_NAME",
    "PAGE_FILE",
    "PARTIAL",
    "PLOTS",
    "REPORT_FILE",
    "REPORT_NAME",
    "SAMPLES_FILE",
    "SAMPLES_NAME",
    "UTILITY_LOGS",
    "UTILITY_NAME",
]

CARD_NAME: Final = "README.md"
PLOTS: Final = "assets"
"""Folder of the card's plots."""

EVALUATION: Final = "evaluation"
"""Folder of all that is measured, and of the report that the card leads with."""
REPORT_FILE: Final = "report.json"
SAMPLES_FILE: Final = "samples.jsonl"
"""Every answer, beside its report."""
PAGE_FILE: Final = "report.html"
"""A report with every answer, for people; beside it, and never published."""
EXCHANGE_FILE: Final = "safety_eval.json"
"""The rates of a report in the shape of Every Eval Ever, beside it."""
REPORT_NAME: Final = f"{EVALUATION}/{REPORT_FILE}"
SAMPLES_NAME: Final = f"{EVALUATION}/{SAMPLES_FILE}"
EXCHANGE_NAME: Final = f"{EVALUATION}/{EXCHANGE_FILE}"
ADAPTIVE_NAME: Final = f"{EVALUATION}/adaptive.json"
UTILITY_NAME: Final = f"{EVALUATION}/utility.json"
UTILITY_LOGS: Final = f"{EVALUATION}/utility"
"""Folder of the logs of lmms-eval, by arm."""
PARTIAL: Final = ".partial.jsonl"
"""How the names of journals end: what a stopped run has done so far."""
