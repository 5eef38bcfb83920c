"""The Hugging Face Hub: where a base model comes from and where a steered one goes.

The token is the user's own, found by huggingface_hub (`hf auth login` or HF_TOKEN). It is never a
parameter, never stored and never printed.
"""

from mars_export.hub.base import BaseDirectory, cached_repository, fetch_base
from mars_export.hub.license import License, license_of, with_terms
from mars_export.hub.publish import check_destination, destination_of, push, require_name

__all__ = [
    "BaseDirectory",
    "License",
    "cached_repository",
    "check_destination",
    "destination_of",
    "fetch_base",
    "license_of",
    "push",
    "require_name",
    "with_terms",
]
