"""What inspect_ai finds by its entry point."""

from mars_export.integrations.inspect_ai.provider import mars
from mars_export.integrations.inspect_ai.scorers import refusal
from mars_export.integrations.inspect_ai.tasks import suite

__all__ = ["mars", "refusal", "suite"]
