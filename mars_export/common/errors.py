"""The one exception that a user sees."""

__all__ = ["ExportError"]


class ExportError(Exception):
    """A problem that the user can fix.

    The message is one line: what is wrong, where, and what to do. The command line prints it and
    exits with code 2; a traceback is left to genuine bugs.
    """
