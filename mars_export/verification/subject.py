"""What is verified: the files, and the few that every check reads."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from mars_export.checkpoint.files import Place
from mars_export.checkpoint.manifest import Manifest
from mars_export.common.progress import Tick
from mars_export.families import Family, families
from mars_export.families.directory import read_json
from mars_export.verification.report import CheckFailedError

__all__ = ["Subject"]


@dataclass(frozen=True)
class Subject:
    """A checkpoint under verification.

    Attributes:
        place: Its files.
        manifest: Read from it; may be forged.
        offline: Whether the Hub may not be asked about the base.
        progress: Told how many bytes have been compared, and how many there are.
        asked: Answers of the Hub that several checks need.
    """

    place: Place
    manifest: Manifest
    offline: bool = False
    progress: Tick | None = None
    asked: dict[str, Any] = field(default_factory=dict)

    @cached_property
    def config(self) -> dict[str, Any]:
        """The parsed config.json.

        Raises:
            CheckFailedError: if it is no object.
            ExportError: if it cannot be read.
        """
        config = read_json(self.place.fetch("config.json"))
        text = config.get("text_config", {}) if isinstance(config, dict) else None
        if not isinstance(text, dict) or not isinstance(config.get("steering"), dict):
            raise CheckFailedError("config.json is not that of a steered checkpoint")
        return dict(config)

    @cached_property
    def family(self) -> Family:
        """The family of the base model.

        Raises:
            CheckFailedError: if this version does not know it and cannot work it out.
        """
        base = self.manifest.base
        if base.model_type in families():
            return families()[base.model_type]
        if not self.manifest.family_inspected:
            raise CheckFailedError(f"no family {base.model_type!r} is known to this version")
        from mars_export.families.inspection import inspect_family

        return inspect_family(native_config(self.config, base.model_type, base.architecture))


def native_config(config: dict[str, Any], model_type: str, architecture: str) -> dict[str, Any]:
    """A steered config.json without what the export added: the base's, when nothing else changed.

    Args:
        config: Of the steered checkpoint.
        model_type: Of the base.
        architecture: Native class of the base.
    """
    native: dict[str, Any] = {k: v for k, v in config.items() if k not in ("steering", "auto_map")}
    native |= {"model_type": model_type, "architectures": [architecture]}
    guarded = config["steering"].get("guarded", {})
    if "text_config" in native:
        native["text_config"] = native["text_config"] | guarded
        return native
    return {**native, **guarded}
