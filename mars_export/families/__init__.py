"""Model families as data."""

from mars_export.families.family import (
    STEERED_TYPE,
    Family,
    decoder_layers,
    families,
    family_of,
    refuse_custom_code,
    text_decoder,
)
from mars_export.families.results import Tested, tested

__all__ = [
    "STEERED_TYPE",
    "Family",
    "Tested",
    "decoder_layers",
    "families",
    "family_of",
    "refuse_custom_code",
    "tested",
    "text_decoder",
]
