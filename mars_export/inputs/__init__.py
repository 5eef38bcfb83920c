"""Prompt sets, requests and neutral stimuli."""
