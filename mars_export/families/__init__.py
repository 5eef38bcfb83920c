"""Model families as data."""

from mars_export.families.family import Family, decoder_layers, families, family_of

__all__ = ["Family", "decoder_layers", "families", "family_of"]
