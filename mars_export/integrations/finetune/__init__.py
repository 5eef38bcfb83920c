"""What training does to a steered checkpoint."""
