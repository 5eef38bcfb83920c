"""MARS (arXiv 2606.31876): gated, bounded steering along a text refusal direction."""
