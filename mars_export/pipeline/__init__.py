"""A run from settings to a published checkpoint."""
