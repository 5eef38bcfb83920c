"""Attacks that adapt to the checkpoint: white box by gradients, black box by trying."""
