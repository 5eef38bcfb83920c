"""The model card, rendered from manifest and report alone."""
