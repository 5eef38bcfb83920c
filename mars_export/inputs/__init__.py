"""Prompt sets and neutral visuals."""
