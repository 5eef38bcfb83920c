"""The version of the package, without importing any other part of it."""

__version__ = "0.2.0"
