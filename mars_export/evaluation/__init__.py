"""Measuring a steered directory as a user loads it."""
