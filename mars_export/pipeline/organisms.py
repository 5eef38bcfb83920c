"""The toy models that `--model organism:NAME` names."""

from pathlib import Path
from typing import Final

from mars_export.common.errors import ExportError
from mars_export.common.paths import exists
from mars_export.common.problems import near

__all__ = ["ORGANISM", "organisms", "resolve_model"]

ORGANISM: Final = "organism:"
_PACKAGE: Final = Path(__file__).parents[1]
_INSTALLED: Final = _PACKAGE / "organisms"
"""In a wheel, which leaves out most of them."""
_CHECKOUT: Final = _PACKAGE.parent / "examples" / "organisms"
_REPOSITORY: Final = "https://github.com/mars-export/mars-export"


def organisms() -> list[str]:
    """What `--model` takes for the bundled toy models."""
    return sorted(ORGANISM + name for name in _bundled())


def _bundled() -> dict[str, Path]:
    return {
        config.parent.name: config.parent
        for folder in (_CHECKOUT, _INSTALLED)
        for config in folder.glob("*/config.json")
    }


def resolve_model(model: str) -> str:
    """Directory of a bundled organism for `organism:NAME`; anything else as it is.

    Raises:
        ExportError: if there is no such organism.
    """
    known = _bundled()
    if not model.startswith(ORGANISM):
        if model in known and not exists(Path(model)):
            raise ExportError(f"there is no directory {model}; is it {ORGANISM}{model}?")
        return model
    name = model.removeprefix(ORGANISM)
    if name in known:
        return str(known[name])
    hint, bundled = near(name, known), ", ".join(sorted(known))
    if _INSTALLED.is_dir() and not hint:
        raise ExportError(
            f"organism {name!r} is not part of the installed package, which holds {bundled}; for "
            f"others clone {_REPOSITORY} and give --model examples/organisms/NAME"
        )
    raise ExportError(f"there is no organism {name!r}{hint or f'; bundled: {bundled}'}")
