"""The modeling file of a family: the files of `runtime` as they are, then its classes."""

from importlib.resources import files
from typing import Final

from jinja2 import Environment, StrictUndefined

from mars_export.families import Family

__all__ = ["MODELING_NAME", "modeling_source"]

MODELING_NAME: Final = "modeling_steered.py"
_PARTS: Final = ("steering.py", "positions.py", "model.py", "registration.py")
_OWN: Final = "from mars_export.runtime."
_DEFAULTS: Final = {"logits_to_keep": "0"}


def modeling_source(family: Family) -> str:
    """The one Python file that a checkpoint of this family carries. Depends on nothing else."""
    folder = files("mars_export.runtime")
    template = Environment(undefined=StrictUndefined, autoescape=False, keep_trailing_newline=True)
    headless = (family.model, f"SteeredMixin, {family.model}", family.forward.model)
    generator = (
        family.generator,
        f"SteeredGenerationMixin, {family.generator}, GenerationMixin",
        family.forward.generator,
    )
    classes = [generator] if family.model == family.generator else [headless, generator]
    tail = template.from_string((folder / "family.py.j2").read_text("utf-8")).render(
        family=family,
        classes=[
            (native, bases, [(name, _DEFAULTS.get(name, "None")) for name in names])
            for native, bases, names in classes
        ],
    )
    parts = [_part((folder / name).read_text("utf-8")) for name in _PARTS]
    return "\n\n\n".join(parts) + "\n" + tail


def _part(source: str) -> str:
    """A file of `runtime` without the imports of its neighbors, which stand above it."""
    lines = [line for line in source.splitlines() if not line.startswith(_OWN)]
    return "\n".join(lines).rstrip("\n")
