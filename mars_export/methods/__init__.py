"""Steering methods, one file each."""
