"""The exceptions that a user sees."""

__all__ = ["ExportError", "UnsteerableError"]


class ExportError(Exception):
    """A problem that the user can fix.

    The message is one line: what is wrong, where, and what to do. The command line prints it and
    exits with code 2.
    """


class UnsteerableError(ExportError):
    """A model whose activations a method cannot be calibrated on, with the reason."""
