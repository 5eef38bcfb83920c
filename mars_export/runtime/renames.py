"""Key renames of the native classes, for the steered ones. Travels behind steering.py."""

from typing import Any

from transformers.conversion_mapping import (
    get_checkpoint_conversion_mapping,
    register_checkpoint_conversion_mapping,
)


def register_renames(config: Any, *natives: Any) -> None:
    """Give the steered classes the checkpoint key renames of their native classes.

    Transformers skips its own renames for custom classes; weights would be random instead.
    """
    for native in natives:
        renames = get_checkpoint_conversion_mapping(native.__name__)
        renames = renames or get_checkpoint_conversion_mapping(config.model_type)
        if renames:
            name = "Steered" + native.__name__
            register_checkpoint_conversion_mapping(name, renames, overwrite=True)
