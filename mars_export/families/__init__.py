"""Model families as data."""

from mars_export.families.family import (
    OTHER_FILES,
    STEERED_TYPE,
    Family,
    decoder_layers,
    families,
    family_of,
    names_code,
    refuse_custom_code,
    text_decoder,
)
from mars_export.families.results import Tested, tested

__all__ = [
    "OTHER_FILES",
    "STEERED_TYPE",
    "Family",
    "Tested",
    "decoder_layers",
    "families",
    "family_of",
    "names_code",
    "refuse_custom_code",
    "tested",
    "text_decoder",
]
