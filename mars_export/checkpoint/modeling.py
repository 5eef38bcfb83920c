"""The modeling file of a family: `steering.py` as it is, then the family's classes."""

import hashlib
from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from mars_export.families import Family

__all__ = ["MODELING_NAME", "modeling_digest", "modeling_source"]

MODELING_NAME: Final = "modeling_mars.py"
_DEFAULTS: Final = {"logits_to_keep": "0"}


def modeling_source(family: Family) -> str:
    """The one Python file that a checkpoint of this family carries. Depends on nothing else."""
    folder = files("mars_export.runtime")
    template = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    classes = [
        (family.model, f"SteeredMixin, {family.model}", family.forward.model),
        (
            family.generator,
            f"SteeredGenerationMixin, {family.generator}, GenerationMixin",
            family.forward.generator,
        ),
    ]
    tail = template.from_string((folder / "family.py.j2").read_text("utf-8")).render(
        family=family,
        classes=[
            (native, bases, [(name, _DEFAULTS.get(name, "None")) for name in names])
            for native, bases, names in classes
        ],
    )
    return (folder / "steering.py").read_text("utf-8").rstrip("\n") + "\n" + tail


def modeling_digest(family: Family) -> str:
    """SHA-256 of the modeling file, to recognise it without running it."""
    return hashlib.sha256(modeling_source(family).encode()).hexdigest()
