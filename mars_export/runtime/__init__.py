"""The code that travels with a checkpoint."""
