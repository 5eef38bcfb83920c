"""Foreign text and numbers made safe for Markdown, and the templates that use them."""

from typing import Final

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["DASH", "cell", "code", "minus", "num", "sentence", "size", "templates", "unbroken"]

DASH: Final = "\N{EN DASH}"
"""Stands for a number that is not known."""


def templates(package: str) -> Environment:
    """The Markdown templates of a package, with the functions below as filters.

    Args:
        package: Dotted name of the package whose folder holds the templates.
    """
    # The output is Markdown, not HTML: foreign strings go through `code` and `cell` instead.
    environment = Environment(
        loader=PackageLoader(package, "."),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (cell, code, num, sentence, size, unbroken):
        environment.filters[function.__name__] = function
    return environment


def cell(text: str) -> str:
    """Text that breaks neither a table nor the line."""
    return " ".join(text.split()).replace("|", r"\|").replace("<", "&lt;")


def code(text: str) -> str:
    """A name as code, whatever characters it has."""
    clean = " ".join(text.split()).replace("`", "'").replace("|", "/")
    return f"`{clean[:120]}`"


def num(value: float | None) -> str:
    """Three significant digits with a true minus; a dash for None."""
    if value is None:
        return DASH
    text = f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"
    return minus(text[0]) + text[1:]


def sentence(text: str) -> str:
    """A cell that ends as a sentence does."""
    text = cell(text)
    return text if text.endswith((".", "!", "?")) else f"{text}."


def size(count: int) -> str:
    """Bytes in the decimal unit that fits."""
    value, unit = float(count), "B"
    for larger in ("kB", "MB", "GB"):
        if value < 1000:
            break
        value, unit = value / 1000, larger
    return unbroken(f"{value:.3g} {unit}" if unit != "B" else f"{count} B")


def minus(text: str) -> str:
    """The same with a true minus sign."""
    return text.replace("-", "\N{MINUS SIGN}")


def unbroken(text: str) -> str:
    """The same with no-break spaces, so that a narrow table column cannot tear a number apart."""
    return text.replace(" ", "\N{NO-BREAK SPACE}")
