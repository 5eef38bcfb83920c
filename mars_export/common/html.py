"""Templates of pages: whatever they are given is text there, also where it looks like HTML."""

from jinja2 import Environment, PackageLoader, StrictUndefined

__all__ = ["pages"]


def pages(package: str) -> Environment:
    """The HTML templates of a package.

    Args:
        package: Dotted name of the package whose folder holds the templates.
    """
    return Environment(
        loader=PackageLoader(package, "."),
        undefined=StrictUndefined,
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
