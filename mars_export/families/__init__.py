"""Model families as data."""

from mars_export.families.family import Family, families, family_of

__all__ = ["Family", "families", "family_of"]
